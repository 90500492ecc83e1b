"""Events as a binary sensor by MQTT, which Home Assistant finds by itself (its MQTT discovery).

While an event goes on the sensor is ON. What the sensor is, and its state, are retained by the broker, and said anew at
every connection; the broker's last will says "offline" where this process ends without a word. Of the address only host
and port are ever said; user and password may stand in it, or in VIDLET_MQTT_USER and VIDLET_MQTT_PASSWORD.

Source: home-assistant.io/integrations/mqtt (discovery, availability), MQTT 3.1.1.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import DependencyError, RecipeError
from ..wording import as_json, how_to_install, redact, shown
from .events import Event

PORTS = {"mqtt": 1883, "mqtts": 8883}
USER, PASSWORD = "VIDLET_MQTT_USER", "VIDLET_MQTT_PASSWORD"
PREFIX, DISCOVERY = "vidlet", "homeassistant"
KEEPALIVE_S = 30
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1, 60
LAST_WAIT_S = 5.0  # for what is not yet delivered when the source has ended
MOST_WAITING = 1000  # messages that wait for the broker
QUEUE_FULL = 15  # paho's MQTT_ERR_QUEUE_SIZE
REFUSED = (4, 5, 134, 135)  # bad user or password, not authorized, by version 3.1.1 and 5


@dataclass(frozen=True)
class Broker:
    """Where messages go: mqtt://[user:password@]host[:port][/prefix][?discovery=prefix], or mqtts://."""

    host: str
    port: int
    user: str | None
    password: str | None
    secure: bool
    prefix: str = PREFIX
    discovery: str = DISCOVERY

    @classmethod
    def of(cls, address: str) -> Broker:
        """Read an address.

        Raises:
            RecipeError: not one of MQTT; what it says of it holds no password.
        """
        try:
            parts = urllib.parse.urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urllib.parse.urlsplit(""), None, None
        prefix = urllib.parse.unquote(parts.path).strip("/") or PREFIX
        discovery = (urllib.parse.parse_qs(parts.query).get("discovery") or [DISCOVERY])[0].strip("/")
        if parts.scheme not in PORTS or not host or set(f"{prefix}{discovery}") & set("#+\0"):
            raise RecipeError(f"--mqtt {shown(address)}: expected an address as in mqtt://192.168.0.2:1883")
        user, password = (urllib.parse.unquote(text) if text else None for text in (parts.username, parts.password))
        user, password = user or os.environ.get(USER), password or os.environ.get(PASSWORD)
        secure = parts.scheme == "mqtts"
        return cls(host, port or PORTS[parts.scheme], user, password, secure, prefix, discovery)

    @property
    def place(self) -> str:
        """What may be said of it."""
        return f"{self.host}:{self.port}"


class Sensor:
    """A binary sensor for one label of one source; from ``start`` on it connects, again and again, in its own thread.

    Args:
        source: of the events, as it may be said.
        about: what made them, for the device's page.
        say: told in one line when the broker cannot be reached, refuses, or is back.

    Raises:
        RecipeError: an address that is none. DependencyError: paho-mqtt is not installed.
    """

    def __init__(
        self, address: str, source: str, label: str, about: str = "", say: Callable[[str], None] = print
    ) -> None:
        self.broker = Broker.of(address)
        self._say, self.source, self.label = say, redact(source), label
        self.lost = 0  # messages that no broker took
        node = f"{_slug(self.source)}_{hashlib.sha256(self.source.encode(errors='replace')).hexdigest()[:8]}"
        self.base = f"{self.broker.prefix}/{node}"
        self.topic = f"{self.base}/{_slug(label)}"
        self._config = f"{self.broker.discovery}/binary_sensor/{node}/{_slug(label)}/config"
        self._described = _description(self, node, about)
        self._state, self._told = "OFF", {"label": label, "source": self.source}
        self._sent: set[int] = set()  # numbers of messages
        self._taken: set[int] = set()  # those that the broker has; no lock, since paho calls us within its own
        self._lock = threading.Lock()
        self._down = self._refused = False
        self._client = _client(self.broker, f"vidlet-{node}"[:60], f"{self.base}/status")
        self._client.on_connect, self._client.on_disconnect = self._connected, self._disconnected
        self._client.on_publish = lambda client, data, number, *_: self._taken.add(number)
        self._client.on_connect_fail = lambda *_: self._went("cannot be reached")
        self._started = False

    def start(self) -> None:
        """The source is there: connect, and say so."""
        self._client.connect_async(self.broker.host, self.broker.port, KEEPALIVE_S)
        self._client.loop_start()
        self._started = True

    def began(self, event: Event) -> None:
        """An event begins: ON."""
        self._set("ON", {"label": event.label, "score": event.score, "time_s": event.start_s, "source": self.source})

    def ended(self, event: Event) -> None:
        """It is over: OFF."""
        about = {"label": event.label, "score": event.score, "time_s": event.start_s, "end_s": event.end_s}
        self._set("OFF", {**about, "source": self.source})

    def close(self) -> None:
        """Say that nothing comes any more, and wait a little until all is delivered."""
        if not self._started:
            return
        self._set("OFF", self._told)
        self._publish(f"{self.base}/status", "offline")
        ends_s = time.monotonic() + LAST_WAIT_S
        while self._sent - self._taken and time.monotonic() < ends_s and not self._refused:
            time.sleep(0.02)
        if left := len(self._sent - self._taken):
            self.lost += left
            self._say(f"--mqtt {self.broker.place}: {left} messages were not delivered")
        self._client.disconnect()
        self._client.loop_stop()

    def _set(self, state: str, told: dict[str, Any]) -> None:
        with self._lock:
            self._state, self._told = state, told
        self._say_state()

    def _say_state(self) -> None:
        with self._lock:
            state, told = self._state, self._told
        self._publish(f"{self.topic}/attributes", as_json(told))
        self._publish(f"{self.topic}/state", state)

    def _publish(self, topic: str, text: str) -> None:
        message = self._client.publish(topic, text, qos=1, retain=True)
        if message.rc == QUEUE_FULL:
            self.lost += 1
            return
        self._sent.add(message.mid)
        done = self._sent & self._taken
        self._sent -= done
        self._taken -= done

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = reason.value in REFUSED
            self._went(f"refused the connection ({shown(str(reason)).lower()})")
            if self._refused:  # to try again would lock the account
                client.disconnect()
            return
        if self._down:
            self._say(f"--mqtt {self.broker.place}: is back")
        self._down = False
        self._publish(self._config, self._described)
        self._publish(f"{self.base}/status", "online")
        self._say_state()

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure and not self._refused:
            self._went("broke off the connection")

    def _went(self, why: str) -> None:
        if not self._down:
            self._down = True
            again = "" if self._refused else "; it is tried again"
            self._say(f"--mqtt {self.broker.place}: {why}{again}")


def _client(broker: Broker, name: str, status: str) -> Any:
    try:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise DependencyError(f"--mqtt needs paho-mqtt; {how_to_install('mqtt')}") from error
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    if broker.secure:
        client.tls_set()
    client.will_set(status, "offline", qos=1, retain=True)
    client.reconnect_delay_set(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    client.max_queued_messages_set(MOST_WAITING)
    return client


def _description(sensor: Sensor, node: str, about: str) -> str:
    """What Home Assistant is told of the sensor."""
    return as_json(
        {
            "name": sensor.label,
            "unique_id": f"vidlet_{node}_{_slug(sensor.label)}",
            "state_topic": f"{sensor.topic}/state",
            "json_attributes_topic": f"{sensor.topic}/attributes",
            "availability_topic": f"{sensor.base}/status",
            "payload_on": "ON",
            "payload_off": "OFF",
            "device": {
                "identifiers": [f"vidlet_{node}"],
                "name": f"vidlet {sensor.source}",
                "manufacturer": "vidlet",
                **({"model": about} if about else {}),
            },
            "origin": {"name": "vidlet"},
        }
    )


def _slug(text: str) -> str:
    """A text as a level of a topic: letters, digits, "_"."""
    return re.sub(r"[^a-z0-9]+", "_", text.casefold()).strip("_")[:40] or "x"
