"""Sending a question at most twice, and polling for its answer in time."""

import pytest

from device_agent.config.delegation import Delegation
from device_agent.delegation.session_client import SENDS_MAX, ExchangeFailed, SessionClient
from device_agent.errors import ProtocolFault, Refused, Unreachable
from device_agent.network.sessions_api import NotNow, Unsent
from support.scripted_service import Service

RULE = Delegation(agent="claude", message="Hot?", answer_within_s=60)


@pytest.fixture
def client(service: Service) -> SessionClient:
    return SessionClient("r", RULE, service.services)


async def test_a_question_opens_a_session_and_is_stored_before_it_is_sent(
    service: Service, client: SessionClient
) -> None:
    exchange = service.exchange()
    await client.send(exchange)
    assert service.api.sent == ["Hot?"]
    assert (exchange.session, exchange.final_message) == ("session-1", "https://service/first")
    assert b'"sends": 1' in (service.state_file._path).read_bytes()


async def test_a_later_message_goes_to_the_same_session(service: Service, client: SessionClient) -> None:
    exchange = service.exchange(session="session-1", message="Done.")
    await client.send(exchange)
    assert service.api.sent == ["Done."]
    assert exchange.session == "session-1"


@pytest.mark.parametrize("error", [Unsent("no route"), NotNow("busy", 429, "", None)])
async def test_what_the_service_did_not_receive_is_sent_again_without_limit(
    service: Service, client: SessionClient, error: Exception
) -> None:
    service.api.opening.extend([error] * 3)  # type: ignore[list-item]
    exchange = service.exchange()
    await client.send(exchange)
    assert len(service.api.sent) == 4
    assert exchange.sends == 1
    assert client.trouble == ""


async def test_what_it_may_have_received_is_sent_twice_and_never_a_third_time(
    service: Service, client: SessionClient
) -> None:
    service.api.opening.extend([Unreachable("cut off")] * SENDS_MAX)
    with pytest.raises(ExchangeFailed, match="never known") as caught:
        await client.send(service.exchange())
    assert caught.value.state == "unknown"
    assert len(service.api.sent) == SENDS_MAX


async def test_a_process_that_died_while_sending_counts_as_one_time(
    service: Service, client: SessionClient
) -> None:
    service.api.opening.append(Unreachable("cut off"))
    with pytest.raises(ExchangeFailed) as caught:
        await client.send(service.exchange(sends=1))
    assert caught.value.state == "unknown"
    assert len(service.api.sent) == 1


async def test_a_refusal_ends_it(service: Service, client: SessionClient) -> None:
    service.api.opening.append(Refused("no such agent", 400, "VALIDATION"))
    with pytest.raises(ExchangeFailed, match="no such agent") as caught:
        await client.send(service.exchange())
    assert caught.value.state == "failed"


async def test_what_could_not_be_sent_in_time_ends_with_the_reason(
    service: Service, client: SessionClient
) -> None:
    service.api.opening.extend([Unsent("no route")] * 100)
    with pytest.raises(ExchangeFailed, match="no route") as caught:
        await client.send(service.exchange())
    assert caught.value.state == "no_answer"
    assert len(service.api.sent) == 6, "every 10 s for a minute"


async def test_the_answer_is_polled_until_it_is_there(service: Service, client: SessionClient) -> None:
    service.api.answers.extend([None, Unreachable("away"), ProtocolFault("odd"), "Open it."])
    assert await client.answer(service.exchange()) == "Open it."
    assert service.api.polls == 4
    assert client.trouble == ""


async def test_a_poll_that_fails_is_shown_as_trouble(service: Service, client: SessionClient) -> None:
    service.api.answers.extend([Unreachable("away\x1b[31m")] * 100)
    with pytest.raises(ExchangeFailed, match="no answer within 60 s"):
        await client.answer(service.exchange())
    assert client.trouble == "away [31m"
    client.reset()
    assert client.trouble == ""


async def test_after_its_time_it_is_polled_once_more(service: Service, client: SessionClient) -> None:
    exchange = service.exchange()
    service.clock.step(10_000)
    service.api.answers.append("Here all the time.")
    assert await client.answer(exchange) == "Here all the time."


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_a_session_that_is_gone_ends_it(service: Service, client: SessionClient, status: int) -> None:
    service.api.answers.append(Refused("gone", status))
    with pytest.raises(ExchangeFailed) as caught:
        await client.answer(service.exchange())
    assert caught.value.state == "failed"
