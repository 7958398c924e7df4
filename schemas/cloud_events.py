"""A KeyUsed from any CloudEvents producer: structured or binary mode of CloudEvents' protocol binding for Kafka.

What our own publishers write is read by `schemas.decoder.decode_usage`, much faster; this is for the rest. The event is
brought into the form of ours and decoded like ours, so that the rules of its fields are the same.
"""

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas import times
from schemas.codec import SEQUENCE_DIGITS, canonical
from schemas.decoder import UndecodableEvent, decode_usage
from schemas.events import UsageEnvelope

_ATTRIBUTES: Final = ("specversion", "id", "source", "type", "subject", "time", "dataschema")
_STRUCTURED: Final = "application/cloudevents"
_NUMBER: Final = re.compile(f"[0-9]{{{SEQUENCE_DIGITS}}}")
_JSON: Final = re.compile(r"[^;]*[/+]json\s*(;.*)?", re.IGNORECASE)


def read_usage(value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> UsageEnvelope:
    """Read a KeyUsed in the form another producer gave it. Raises schemas.decoder.UndecodableEvent.

    Names stand in any order, attributes that we do not know are ignored, what is null counts as absent, and times have
    any offset and up to nine decimals. Where they are absent, `subject` is the key id and `time` is `last_at`. A
    `sequence` in another form than ours is one of the attributes that we do not know.
    """
    try:
        texts = {name.lower(): header.decode() for name, header in headers if header is not None}
        document = _ours(_binary(value, texts) if _is_binary(texts) else _structured(value))
        return decode_usage(canonical(document))
    except UndecodableEvent:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise UndecodableEvent(str(error)) from error


def _is_binary(headers: Mapping[str, str]) -> bool:
    content_type = headers.get("content-type", "")
    return "ce_specversion" in headers and not content_type.lower().startswith(_STRUCTURED)


def _binary(value: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Attributes in headers, data in the value."""
    event: dict[str, Any] = {name[3:]: text for name, text in headers.items() if name.startswith("ce_")}
    return event | {"datacontenttype": headers.get("content-type"), "data": _object(value)}


def _structured(value: bytes) -> dict[str, Any]:
    """Attributes and data in the value."""
    event = _object(value)
    if event.get("data_base64") is not None:
        event["data"] = _object(b64decode(event["data_base64"], validate=True))
    return event


def _object(value: bytes) -> dict[str, Any]:
    document = json.loads(value.decode())
    if type(document) is not dict:
        raise UndecodableEvent("is no JSON object")
    return document


def _ours(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event as `schemas.codec` would have it; what is wrong in it stays, and is found by the decoder."""
    content_type, data = event.get("datacontenttype"), event.get("data")
    if content_type is not None and not _JSON.fullmatch(content_type):
        raise UndecodableEvent("datacontenttype: must be JSON")
    if type(data) is not dict:
        raise UndecodableEvent("data: is no JSON object")
    data = _with_times({name: value for name, value in data.items() if value is not None}, ("first_at", "last_at"))
    document = {name: event[name] for name in _ATTRIBUTES if event.get(name) is not None}
    document = {"subject": data.get("key_id"), "time": data.get("last_at")} | document
    if _NUMBER.fullmatch(str(event.get("sequence"))):
        document["sequence"] = event["sequence"]
    return _with_times(document, ("time",)) | {"data": data}


def _with_times(document: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """These members in UTC, with three decimals. Raises ValueError and TypeError."""
    return document | {
        name: times.to_text(times.parse_any_offset(document[name])) for name in names if name in document
    }
