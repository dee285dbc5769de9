"""A stand-in of the Sessions API, which the network stand-in serves under `/rest/v1/sessions`."""

from device_agent.testing.sessions_api.api import SessionsApi
from device_agent.testing.sessions_api.state import Message, Session

__all__ = ["Message", "Session", "SessionsApi"]
