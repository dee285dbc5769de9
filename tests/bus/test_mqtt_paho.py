"""MQTT against a real mosquitto."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.bus import mqtt_connection
from device_agent.bus.config import MqttBusConfig
from device_agent.bus.mqtt import MqttMessage
from device_agent.bus.mqtt_paho import MESSAGES_MAX, WAITING_MAX_BYTES, PahoMqtt
from device_agent.errors import BusDenied, BusError, BusGone, BusTimeout
from device_agent.guard import mqtt as guard_mqtt
from support.access_lists import AS_CREDENTIALS, access_list
from support.mosquitto import LIMIT_S, Broker, collected, free_port


def config(broker: Broker, **options) -> MqttBusConfig:
    return MqttBusConfig(kind="mqtt", host="127.0.0.1", port=broker.port, **options)


@pytest.fixture
def handle(broker: Broker) -> Iterator[PahoMqtt]:
    broker.start()
    handle = PahoMqtt("broker", config(broker, timeout_s=10))
    handle.open()
    yield handle
    handle.close()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_publish_reaches_a_subscription(handle, qos):
    source = handle.subscribe(("a/+", "b/#"), qos=qos)
    handle.publish("a/1", b"one", qos=qos)
    handle.publish("b/x/y", bytes(range(256)), qos=qos)
    handle.publish("c", b"elsewhere", qos=qos)
    assert collected(source, lambda got: len(got) == 2) == [
        MqttMessage("a/1", b"one"),
        MqttMessage("b/x/y", bytes(range(256))),
    ]
    source.close()


def test_retained_messages_say_so(handle):
    handle.publish("tank/level", b"3", retain=True)
    source = handle.subscribe(("tank/level",))
    assert collected(source, bool) == [MqttMessage("tank/level", b"3", retained=True)]
    source.close()


def test_each_source_gets_its_own_topics(handle):
    first, second = handle.subscribe(("a", "both")), handle.subscribe(("b", "both"))
    for topic in ("a", "b", "both"):
        handle.publish(topic, b"")
    assert {m.topic for m in collected(first, lambda got: len(got) == 2)} == {"a", "both"}
    assert {m.topic for m in collected(second, lambda got: len(got) == 2)} == {"b", "both"}
    first.close()
    handle.publish("both", b"again")
    assert collected(second, bool) == [MqttMessage("both", b"again")]
    second.close()


def test_a_slow_reader_loses_the_oldest_and_counts(handle, monkeypatch):
    monkeypatch.setattr(mqtt_connection, "WINDOW_MESSAGES", 1_000_000)
    source = handle.subscribe(("flood",))
    extra = 50
    for number in range(MESSAGES_MAX + extra):
        handle.publish("flood", str(number).encode(), qos=0)
    deadline_s = time.monotonic() + LIMIT_S
    while source.lost < extra:
        assert time.monotonic() < deadline_s, source.lost
        time.sleep(0.01)
    got = source.drain()
    assert (len(got), got[0].payload) == (MESSAGES_MAX, str(extra).encode())
    source.close()


def test_large_payloads_do_not_fill_the_memory(handle):
    source = handle.subscribe(("a",))
    for _ in range(5):
        handle.publish("a", b"x" * (WAITING_MAX_BYTES // 4))
    handle.publish("a", b"y" * (WAITING_MAX_BYTES + 1))  # larger than all the room there is
    handle.publish("a", b"last")
    deadline_s = time.monotonic() + LIMIT_S
    while source.lost < 6:
        assert time.monotonic() < deadline_s, source.lost
        time.sleep(0.01)
    assert [m.payload for m in collected(source, bool)] == [b"last"]
    source.close()


def resident_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_a_huge_message_is_dropped_and_the_connection_stays(broker, handle):
    """Also a retained one, which the broker would send again with each connection."""
    source = handle.subscribe(("a",))
    with subprocess.Popen(
        [sys.executable, "-c", HUGE, str(broker.port)], stdout=subprocess.PIPE, text=True
    ) as sender:
        before_kb, most_kb = resident_kb(), 0
        deadline_s = time.monotonic() + LIMIT_S
        while source.lost < 1:
            most_kb = max(most_kb, resident_kb())
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        assert sender.wait(LIMIT_S) == 0
    handle.publish("a", b"next")
    assert [m.payload for m in collected(source, bool)] == [b"next"]
    assert most_kb - before_kb < 40_000
    source.close()


HUGE = """
import sys
from paho.mqtt import client, enums
c = client.Client(enums.CallbackAPIVersion.VERSION2)
c.connect("127.0.0.1", int(sys.argv[1]))
c.loop_start()
c.publish("a", b"x" * 200_000_000, qos=1, retain=True).wait_for_publish(60)
c.disconnect()
"""


def test_so_much_is_read_in_a_window_and_no_more(handle, monkeypatch):
    """The rest waits at the broker; what is sent goes out all the same."""
    monkeypatch.setattr(mqtt_connection, "WINDOW_MESSAGES", 5)
    monkeypatch.setattr(mqtt_connection, "WINDOW_S", 3600.0)
    source = handle.subscribe(("flood",))
    for number in range(200):
        handle.publish("flood", str(number).encode(), qos=0)
    got = collected(source, lambda got: len(got) >= 5)
    handle.publish("other", b"goes out", qos=0)
    assert len(got) == 5
    monkeypatch.setattr(mqtt_connection, "WINDOW_MESSAGES", 1000)
    assert len(collected(source, lambda got: len(got) >= 195)) == 195
    source.close()


def test_a_lost_broker_is_reported_and_a_new_connection_works(broker, handle):
    source = handle.subscribe(("a",))
    broker.stop()
    with pytest.raises(BusGone, match="connection lost"):
        collected(source, lambda got: False)
    with pytest.raises(BusGone, match="connection lost"):
        handle.publish("a", b"late")
    with pytest.raises(BusGone):
        handle.subscribe(("b",))
    source.close()
    with pytest.raises(BusGone, match="no broker answers"):
        handle.open()
    broker.start()
    handle.open()
    source = handle.subscribe(("a",))
    handle.publish("a", b"again")
    assert collected(source, bool) == [MqttMessage("a", b"again")]
    source.close()


def test_no_broker_at_the_address():
    with pytest.raises(BusGone, match="no broker answers"):
        PahoMqtt("broker", MqttBusConfig(kind="mqtt", host="127.0.0.1", port=free_port())).open()


def test_a_far_end_that_is_no_broker():
    """Something accepts and hangs up: open ends with a sentence, no thread stays."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.close()

        far = threading.Thread(target=hang_up)
        far.start()
        port = server.getsockname()[1]
        with pytest.raises(BusGone, match="did not greet"):
            PahoMqtt("broker", MqttBusConfig(kind="mqtt", host="127.0.0.1", port=port)).open()
        far.join(LIMIT_S)
    assert not any(thread.name == "bus-broker-mqtt" for thread in threading.enumerate())


def test_an_acknowledgement_that_never_comes():
    """The far end greets and then is silent: the outcome is unknown, which is a time-out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x20\x02\x00\x00")
                done.wait(LIMIT_S)

        # One connection to send, one to receive.
        far = [threading.Thread(target=greet) for _ in range(2)]
        for thread in far:
            thread.start()
        handle = PahoMqtt(
            "broker",
            MqttBusConfig(kind="mqtt", host="127.0.0.1", port=server.getsockname()[1], timeout_s=0.2),
        )
        handle.open()
        try:
            with pytest.raises(BusTimeout, match="may have been published"):
                handle.publish("a", b"1")
            with pytest.raises(BusTimeout, match="no answer to a subscription"):
                handle.subscribe(("a",))
        finally:
            handle.close()
            done.set()
            for thread in far:
                thread.join(LIMIT_S)


def password(tmp_path, text: str, mode: int = 0o600) -> str:
    file = tmp_path / "password"
    file.write_text(text + "\n")
    file.chmod(mode)
    return str(file)


def test_credentials(broker, tmp_path):
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "farm", "right"], check=True)
    broker.start("allow_anonymous false", f"password_file {users}")
    with pytest.raises(BusDenied, match="check `username`"):
        PahoMqtt("broker", config(broker)).open()
    wrong = config(broker, username="farm", password_file=password(tmp_path, "wrong"))
    with pytest.raises(BusDenied, match="check `username`"):
        PahoMqtt("broker", wrong).open()
    right = PahoMqtt("broker", config(broker, username="farm", password_file=password(tmp_path, "right")))
    right.open()
    right.publish("a", b"1")
    right.close()


def test_a_password_that_others_may_read_is_refused(broker, tmp_path):
    file = password(tmp_path, "secret", 0o640)
    with pytest.raises(BusDenied, match=r"may be used by others than its owner \(mode 0640\): run chmod 600"):
        PahoMqtt("broker", config(broker, username="farm", password_file=file)).open()
    with pytest.raises(BusDenied, match="cannot be read"):
        PahoMqtt("broker", config(broker, username="farm", password_file="/no/such/file")).open()


def test_a_password_may_be_a_credential_of_systemd_s(broker, tmp_path):
    file = password(tmp_path, "secret")
    access_list(Path(file), *AS_CREDENTIALS)
    broker.start()
    handle = PahoMqtt("broker", config(broker, username="farm", password_file=file))
    handle.open()
    handle.close()


@pytest.fixture
def certificate(tmp_path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    return str(certificate), str(key)


# paho drops the socket of a failed handshake without closing it; it is closed when collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls(broker, certificate):
    own, key = certificate
    broker.start(f"certfile {own}", f"keyfile {key}")
    with pytest.raises(BusError, match="check `tls`, `ca_file`"):
        PahoMqtt("broker", config(broker, tls=True)).open()
    with pytest.raises(BusError, match="ca_file /no/such/ca cannot be used"):
        PahoMqtt("broker", config(broker, tls=True, ca_file="/no/such/ca")).open()
    handle = PahoMqtt("broker", config(broker, tls=True, ca_file=own))
    handle.open()
    source = handle.subscribe(("a",))
    handle.publish("a", b"secret")
    assert collected(source, bool) == [MqttMessage("a", b"secret")]
    source.close()
    handle.close()
    assert ssl.HAS_TLSv1_2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_asks_for_a_certificate(broker, certificate):
    """The daemon gives it, and the guard too."""
    own, key = certificate
    broker.start(f"certfile {own}", f"keyfile {key}", f"cafile {own}", "require_certificate true")
    with pytest.raises(BusError):
        PahoMqtt("broker", config(broker, tls=True, ca_file=own)).open()
    handle = PahoMqtt(
        "broker", config(broker, tls=True, ca_file=own, certificate_file=own, key_file=key, timeout_s=10)
    )
    handle.open()
    source = handle.subscribe(("valve/set",))
    guard_mqtt.publish(handle.recipe((("valve/set", b"off", False),)).members)
    assert collected(source, bool) == [MqttMessage("valve/set", b"off")]
    source.close()
    handle.close()
    os.chmod(key, 0o644)
    with pytest.raises(BusDenied, match=r"key_file .* may be used by others .*\(mode 0644\)"):
        handle.open()


def test_two_clients_with_one_id_are_named_as_the_likely_cause(broker):
    broker.start()
    first, second = (PahoMqtt("broker", config(broker, client_id="house", timeout_s=10)) for _ in range(2))
    first.open()
    source = first.subscribe(("a",))
    second.open()
    with pytest.raises(BusGone, match="another client has the id 'house' too"):
        collected(source, bool)
    first.close()
    second.close()


def test_topics_the_broker_or_the_protocol_refuses(broker, handle):
    with pytest.raises(BusError, match="cannot publish to"):
        handle.publish("a/+", b"1")
    with pytest.raises(BusError, match="cannot subscribe to"):
        handle.subscribe(("a/#/b",))


def test_closing_leaks_nothing(broker):
    broker.start()
    handle = PahoMqtt("broker", config(broker))
    handle.open()
    handle.close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        handle.open()
        handle.subscribe(("a",)).close()
    handle.close()
    handle.close()
    with pytest.raises(BusGone, match="is not connected"):
        handle.publish("a", b"1")
    assert not any(thread.name == "bus-broker-mqtt" for thread in threading.enumerate())
    assert len(os.listdir("/proc/self/fd")) <= before
