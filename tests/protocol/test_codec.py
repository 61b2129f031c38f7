"""The codec: values survive a round trip, and hostile input is always a typed error."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import types
import typing
import unittest
from enum import Enum
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtm_sync.errors import ERROR_FAMILIES, RtmError, UploadCancelled
from rtm_sync.messages import (
    RtmFileMessage,
    RtmImageMessage,
    RtmMessage,
    RtmRawMessage,
    RtmTextMessage,
)
from rtm_sync.protocol.codec import decode_json, decode_result, encode_json
from rtm_sync.protocol.errors import ProtocolError, RpcCode
from rtm_sync.protocol.events import (
    EVENTS,
    CancelUpload,
    ChannelMessage,
    MemberJoined,
    SessionEnded,
)
from rtm_sync.protocol.frames import (
    Call,
    Failure,
    Frame,
    Notice,
    Reply,
    decode,
    encode_call,
    encode_failure,
    encode_notice,
    encode_reply,
)
from rtm_sync.protocol.ids import (
    FRAME_LIMIT,
    UPLOAD_KEY_PATTERN,
    app_id_problem,
    id_problem,
    message_id_problem,
)
from rtm_sync.protocol.requests import (
    REQUESTS,
    JoinChannel,
    Login,
    Logout,
    MessageFromPeer,
    SendMessageToPeer,
)
from rtm_sync.protocol.values import (
    ConnectionChangeReason,
    LoginResult,
    MediaInfo,
    ReceivedMessageProperties,
)

# ---- Any value of any type of the protocol, drawn from its annotations -------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
INTEGERS = st.integers(1 - 2**53, 2**53 - 1)
CALL_IDS = st.integers(0, 2**53 - 1)

MESSAGES = st.one_of(
    st.builds(RtmTextMessage, TEXT.filter(bool), TEXT),
    st.builds(RtmRawMessage, st.binary(max_size=60), TEXT),
    st.builds(
        RtmFileMessage,
        TEXT.filter(bool),
        TEXT,
        TEXT,
        INTEGERS,
        st.binary(max_size=60),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    st.builds(
        RtmImageMessage,
        TEXT.filter(bool),
        TEXT,
        TEXT,
        INTEGERS,
        st.binary(max_size=60),
        st.floats(allow_nan=False, allow_infinity=False),
        INTEGERS,
        INTEGERS,
        INTEGERS,
        INTEGERS,
    ),
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that the protocol carries."""
    if kind == RtmMessage:
        return MESSAGES
    if kind is CancelUpload:
        return st.builds(CancelUpload, st.from_regex(UPLOAD_KEY_PATTERN, fullmatch=True))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [item.name for item in dataclasses.fields(kind)]
        return st.builds(kind, **{name: values(hints[name]) for name in names})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return st.one_of(*(values(item) for item in typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return st.lists(values(typing.get_args(kind)[0]), max_size=3).map(tuple)
    if typing.get_origin(kind) is dict:
        return st.dictionaries(TEXT, values(typing.get_args(kind)[1]), max_size=3)
    return {
        str: TEXT,
        int: INTEGERS,
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        types.NoneType: st.none(),
    }[kind]


ANY_REQUEST = st.one_of(*(values(kind) for kind in REQUESTS.values()))
ANY_EVENT = st.one_of(*(values(kind) for kind in EVENTS.values()))
RESULTS = {kind.RESULT for kind in REQUESTS.values()} | {MediaInfo}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=12,
)

# One legal frame of each kind of request and event, to be spoiled.
TEXT_MESSAGE = {"type": "TEXT", "text": "hi", "description": ""}
FILE_MESSAGE = {"type": "FILE", "media_id": "m1", "thumbnail": "AA=="}
PROPS = {"server_received_ts": 1_700_000_000_000}
LEGAL: dict[str, dict[str, Any]] = {
    "login": {"app_id": "app", "uid": "alice"},
    "logout": {},
    "send_message_to_peer": {"peer_id": "bob", "message": TEXT_MESSAGE, "message_id": "a:1"},
    "send_channel_message": {"channel_id": "c", "message": FILE_MESSAGE, "message_id": "a:2"},
    "join_channel": {"channel_id": "c"},
    "leave_channel": {"channel_id": "c"},
    "get_history": {},
    "renew_token": {"token": "t"},
    "query_peers_online_status": {"peer_ids": ["bob"]},
    "subscribe_peers_online_status": {"peer_ids": ["bob"]},
    "unsubscribe_peers_online_status": {"peer_ids": ["bob"]},
    "query_peers_by_subscription_option": {"option": "ONLINE_STATUS"},
    "get_members": {"channel_id": "c"},
    "get_channel_member_count": {"channel_ids": ["c"]},
    "change_user_attributes": {"change": "CLEAR"},
    "get_user_attributes": {"user_id": "bob"},
    "change_channel_attributes": {"channel_id": "c", "change": "CLEAR"},
    "get_channel_attributes": {"channel_id": "c"},
    "send_invitation": {"peer_id": "bob", "invitation_id": "i", "step": "INVITE"},
    "invitation_from_peer": {
        "peer_id": "bob",
        "invitation_id": "i",
        "step": "ACCEPT",
        "content": "",
        "channel_id": "",
    },
    "message_from_peer": {
        "message": FILE_MESSAGE,
        "peer_id": "alice",
        "message_id": "a:3",
        "message_props": PROPS,
    },
    "channel_message": {
        "channel_id": "c",
        "message": TEXT_MESSAGE,
        "member_id": "alice",
        "message_id": "a:4",
        "message_props": PROPS,
    },
    "member_joined": {"channel_id": "c", "member_id": "alice"},
    "member_left": {"channel_id": "c", "member_id": "alice"},
    "member_count_updated": {"channel_id": "c", "member_count": 3},
    "attributes_updated": {
        "channel_id": "c",
        "attributes": {"k": {"value": "v", "last_update_user_id": "a", "last_update_ts": 1}},
    },
    "peers_online_status_changed": {"states": {"bob": "ONLINE"}},
    "token_privilege_will_expire": {},
    "token_expired": {},
    "session_ended": {"reason": 8},
    "listening_changed": {"listens": True},
    "messages_handled": {"keys": [1]},
    "cancel_upload": {"key": "k"},
    "acknowledge": {"received": 3},
}


def frame_of(method: str, params: Any, call_id: Any = 1) -> str:
    frame = {"jsonrpc": "2.0", "method": method, "params": params}
    if method in REQUESTS:
        frame["id"] = call_id
    return json.dumps(frame)


def decoded_or_none(text: str | bytes) -> Frame | None:
    """The frame, or None for a `ProtocolError`; any other exception is the test's failure."""
    try:
        return decode(text)
    except ProtocolError as error:
        # An answer about the refused frame must itself be sendable.
        encode_failure(error.call_id, error).encode()
        return None


class RoundTripTest(unittest.TestCase):
    @given(CALL_IDS, ANY_REQUEST)
    def test_every_request_comes_back_equal(self, call_id: int, request: Any) -> None:
        self.assertEqual(decode(encode_call(call_id, request)), Call(call_id, request))

    @given(ANY_EVENT)
    def test_every_event_comes_back_equal(self, event: Any) -> None:
        self.assertEqual(decode(encode_notice(event).encode()), Notice(event))

    @given(CALL_IDS, st.data())
    def test_every_result_comes_back_equal(self, call_id: int, data: st.DataObject) -> None:
        for kind in RESULTS:
            result = data.draw(values(kind))
            frame = decode(encode_reply(call_id, result))
            self.assertIsInstance(frame, Reply)
            assert isinstance(frame, Reply)
            self.assertEqual((frame.id, decode_result(kind, frame.result)), (call_id, result))
            self.assertEqual(decode_json(kind, encode_json(result)), result)

    @given(MESSAGES)
    def test_a_message_keeps_its_kind_and_all_its_fields(self, message: Any) -> None:
        frame = decode(encode_call(1, SendMessageToPeer("bob", message, "id")))
        assert isinstance(frame, Call)
        again = frame.request.message
        self.assertIs(type(again), type(message))
        self.assertEqual(again, message)

    @given(TEXT)
    def test_every_error_comes_back_with_its_family_code_and_message(self, message: str) -> None:
        for family in ERROR_FAMILIES.values():
            for code in family.Code:
                frame = decode(encode_failure(7, family(code, message)))
                assert isinstance(frame, Failure) and isinstance(frame.error, RtmError)
                self.assertEqual(frame.id, 7)
                self.assertIs(type(frame.error), family)
                self.assertIs(frame.error.code, code)
                self.assertEqual(frame.error.message, message)

    def test_an_error_of_a_subclass_travels_as_its_family(self) -> None:
        frame = decode(encode_failure(7, UploadCancelled.named("INTERRUPTED", "Cancelled.")))
        assert isinstance(frame, Failure) and isinstance(frame.error, RtmError)
        self.assertEqual(type(frame.error).__name__, "UploadMediaError")
        self.assertEqual(frame.error.reason, "INTERRUPTED")

    def test_every_protocol_error_comes_back_with_its_code(self) -> None:
        for code in RpcCode:
            for call_id in (7, None):
                with self.subTest(code.name, call_id=call_id):
                    frame = decode(encode_failure(call_id, ProtocolError(code, "Bad.")))
                    assert isinstance(frame, Failure) and isinstance(frame.error, ProtocolError)
                    self.assertEqual((frame.id, frame.error.code), (call_id, code))
                    self.assertEqual(frame.error.message, "Bad.")

    def test_the_largest_legal_message_fits_in_a_frame(self) -> None:
        worst = [
            RtmTextMessage("\x01" * 32_768),
            RtmRawMessage(b"\xff" * 32_768),
            RtmFileMessage("m" * 64, "\x01" * 255, "", 0, b"t" * (32_768 - 255)),
        ]
        for message in worst:
            request = MessageFromPeer(
                message, "p" * 64, "i" * 64, ReceivedMessageProperties(2**53, True, True)
            )
            self.assertLess(len(encode_call(2**53 - 1, request).encode()), FRAME_LIMIT)

    def test_the_wire_form_is_what_the_document_shows(self) -> None:
        request = SendMessageToPeer("bob", RtmRawMessage(b"\0\xff", "é"), "a:1")
        self.assertEqual(
            json.loads(encode_call(3, request)),
            {
                "jsonrpc": "2.0",
                "id": 3,
                "method": "send_message_to_peer",
                "params": {
                    "peer_id": "bob",
                    "message": {"type": "RAW", "raw_message": "AP8=", "description": "é"},
                    "message_id": "a:1",
                    "enable_offline_messaging": False,
                    "enable_historical_messaging": False,
                },
            },
        )
        ended = SessionEnded(ConnectionChangeReason.REMOTE_LOGIN)
        self.assertEqual(json.loads(encode_notice(ended))["params"], {"reason": 8})

    def test_every_request_and_event_has_a_legal_frame_in_this_test(self) -> None:
        self.assertEqual(set(LEGAL), set(REQUESTS) | set(EVENTS))
        for method, params in LEGAL.items():
            with self.subTest(method):
                self.assertIsInstance(decode(frame_of(method, params)), (Call, Notice))


class ForwardCompatibilityTest(unittest.TestCase):
    def test_what_an_older_end_does_not_know_is_passed_over(self) -> None:
        for method, params in LEGAL.items():
            with self.subTest(method):
                plain = decode(frame_of(method, params))
                newer = decode(frame_of(method, {**params, "colour": {"hue": [1, None]}}))
                self.assertEqual(newer, plain)

    def test_unknown_members_of_the_envelope_and_of_messages_are_passed_over(self) -> None:
        frame = json.loads(frame_of("join_channel", {"channel_id": "c"}))
        self.assertEqual(decode(json.dumps({**frame, "x": 1})), Call(1, JoinChannel("c")))
        message = {**TEXT_MESSAGE, "mood": "good"}
        params = {**LEGAL["send_message_to_peer"], "message": message}
        call = decode(frame_of("send_message_to_peer", params))
        assert isinstance(call, Call)
        self.assertEqual(call.request.message, RtmTextMessage("hi"))

    def test_left_out_optional_fields_take_their_defaults(self) -> None:
        self.assertEqual(decode(frame_of("login", LEGAL["login"])), Call(1, Login("app", "alice")))
        self.assertEqual(decode('{"jsonrpc":"2.0","id":4,"method":"logout"}'), Call(4, Logout()))


class HostileFrameTest(unittest.TestCase):
    def assert_refused(self, text: str | bytes, code: RpcCode) -> ProtocolError:
        with self.assertRaises(ProtocolError) as caught:
            decode(text)
        self.assertEqual(caught.exception.code, code)
        return caught.exception

    def test_what_is_not_json_is_a_parse_error(self) -> None:
        for text in ("", "{", "nul", "[1,]", "{'a':1}", b"\xff\xfe{}", b"\x00", "\ufeff{}", "1 2"):
            with self.subTest(text):
                self.assert_refused(text, RpcCode.PARSE_ERROR)

    def test_nan_and_infinity_are_not_json(self) -> None:
        for word in ("NaN", "Infinity", "-Infinity"):
            with self.subTest(word):
                self.assert_refused(f'{{"jsonrpc":"2.0","id":{word}}}', RpcCode.PARSE_ERROR)

    def test_deep_nesting_anywhere_is_refused_or_ignored_but_never_fatal(self) -> None:
        around = (
            "%s",
            '{"jsonrpc":"2.0","id":%s}',
            '{"jsonrpc":"2.0","id":1,"method":%s}',
            '{"jsonrpc":"2.0","id":1,"method":"login","params":%s}',
            '{"jsonrpc":"2.0","id":1,"method":"login","params":{"uid":%s}}',
            '{"jsonrpc":"2.0","method":"session_ended","params":{"reason":%s}}',
            '{"jsonrpc":"2.0","id":1,"error":%s}',
            '{"jsonrpc":"2.0","id":1,"error":{"code":%s,"message":%s,"data":%s}}',
            '{"jsonrpc":"2.0","id":1,"error":{"code":1,"data":{"family":%s,"name":%s}}}',
        )
        for depth in (100, 400, 480, 900, 960, 100_000):
            for deep in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
                for frame in around:
                    with self.subTest(frame, depth=depth, bracket=deep[0]):
                        decoded_or_none(frame.replace("%s", deep))

    def test_a_batch_or_anything_but_one_object_is_an_invalid_request(self) -> None:
        legal = frame_of("logout", {})
        for text in ("[]", f"[{legal}]", f"[{legal},{legal}]", "1", '"text"', "null", "true", "{}"):
            with self.subTest(text):
                self.assert_refused(text, RpcCode.INVALID_REQUEST)

    def test_another_version_of_json_rpc_is_an_invalid_request(self) -> None:
        for version in ("1.0", 2.0, 2, None, ["2.0"]):
            with self.subTest(version):
                text = json.dumps({"jsonrpc": version, "id": 1, "method": "logout"})
                self.assert_refused(text, RpcCode.INVALID_REQUEST)

    def test_an_id_is_a_whole_number_of_53_bits(self) -> None:
        for call_id in (-1, 2**53, 10**400, 1.0, 1.5, True, "1", [1], {}, "x" * 10_000):
            with self.subTest(str(call_id)[:20]):
                self.assert_refused(frame_of("logout", {}, call_id), RpcCode.INVALID_REQUEST)
        self.assertEqual(decode(frame_of("logout", {}, 2**53 - 1)), Call(2**53 - 1, Logout()))

    def test_a_number_of_ten_thousand_digits_is_refused(self) -> None:
        digits = "9" * 10_000
        self.assert_refused(f'{{"jsonrpc":"2.0","id":{digits}}}', RpcCode.PARSE_ERROR)

    def test_a_frame_that_is_neither_call_nor_answer_is_an_invalid_request(self) -> None:
        for frame in ({}, {"params": {}}, {"result": 1}, {"id": None, "result": 1}):
            with self.subTest(frame):
                text = json.dumps({"jsonrpc": "2.0", **frame})
                self.assert_refused(text, RpcCode.INVALID_REQUEST)

    def test_an_unknown_method_is_not_found_and_answered_under_its_id(self) -> None:
        error = self.assert_refused(
            '{"jsonrpc":"2.0","id":5,"method":"fly"}', RpcCode.METHOD_NOT_FOUND
        )
        self.assertEqual(error.call_id, 5)
        self.assertIn("fly", error.message)

    def test_an_unknown_method_of_a_megabyte_is_not_quoted_in_full(self) -> None:
        error = self.assert_refused(
            json.dumps({"jsonrpc": "2.0", "id": 5, "method": "f" * 1_000_000}),
            RpcCode.METHOD_NOT_FOUND,
        )
        self.assertLess(len(error.message), 200)

    def test_a_request_cannot_come_as_a_notification_nor_an_event_as_a_call(self) -> None:
        for method, params in LEGAL.items():
            frame: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
            if method in EVENTS:
                frame["id"] = 1
            with self.subTest(method):
                self.assert_refused(json.dumps(frame), RpcCode.METHOD_NOT_FOUND)

    def test_a_method_that_is_no_string_is_an_invalid_request(self) -> None:
        for method in (None, 1, ["login"], {"a": 1}):
            with self.subTest(method):
                text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method})
                self.assert_refused(text, RpcCode.INVALID_REQUEST)

    def test_each_missing_required_field_is_named(self) -> None:
        for method, params in LEGAL.items():
            kind = (REQUESTS | EVENTS)[method]  # type: ignore[operator]
            for item in dataclasses.fields(kind):
                if item.default is not dataclasses.MISSING:
                    continue
                with self.subTest(method, missing=item.name):
                    rest = {name: value for name, value in params.items() if name != item.name}
                    error = self.assert_refused(frame_of(method, rest), RpcCode.INVALID_PARAMS)
                    self.assertIn(item.name, error.message)

    def test_each_field_of_a_wrong_type_is_named(self) -> None:
        for method, params in LEGAL.items():
            for name in params:
                for wrong in (None, True, 1.5, [], ["x"], [1], {}, {"type": ["TEXT"]}):
                    legal = params[name]
                    good = [legal, [], {}] if legal == [1] else [legal, [], ["x"], {}]
                    if any(
                        type(wrong) is type(item) is type(legal) and wrong == item for item in good
                    ):
                        continue  # as good as the legal one
                    with self.subTest(method, name=name, wrong=wrong):
                        text = frame_of(method, {**params, name: wrong})
                        error = self.assert_refused(text, RpcCode.INVALID_PARAMS)
                        self.assertIn(name, error.message)

    def test_a_refused_call_tells_its_id_and_request_so_that_it_can_be_answered(self) -> None:
        error = self.assert_refused(frame_of("join_channel", {}, 9), RpcCode.INVALID_PARAMS)
        self.assertEqual((error.call_id, error.request), (9, JoinChannel))
        notice = self.assert_refused(frame_of("member_joined", {}), RpcCode.INVALID_PARAMS)
        self.assertEqual((notice.call_id, notice.request), (None, None))

    def test_parameters_by_position_are_refused(self) -> None:
        for params in ([], ["c"], None, "c", 1):
            with self.subTest(params):
                self.assert_refused(frame_of("join_channel", params), RpcCode.INVALID_PARAMS)

    def test_what_only_equals_an_enum_value_is_not_one(self) -> None:
        for reason in (True, 1.0, "1", 0, 99, -1, None, [8], {}, "LOGIN", 10**400):
            with self.subTest(str(reason)[:20]):
                text = frame_of("session_ended", {"reason": reason})
                self.assert_refused(text, RpcCode.INVALID_PARAMS)

    def test_true_is_no_number_and_one_is_no_boolean(self) -> None:
        self.assert_refused(frame_of("acknowledge", {"received": True}), RpcCode.INVALID_PARAMS)
        params = {**LEGAL["send_message_to_peer"], "enable_offline_messaging": 1}
        self.assert_refused(frame_of("send_message_to_peer", params), RpcCode.INVALID_PARAMS)

    def test_half_a_surrogate_pair_is_refused_wherever_text_stands(self) -> None:
        half = "a\ud800b"
        spoiled = {
            "uid": ("login", {"app_id": "app", "uid": half}),
            "app_id": ("login", {"app_id": half, "uid": "alice"}),
            "token": ("login", {**LEGAL["login"], "token": half}),
            "channel_id": ("join_channel", {"channel_id": half}),
            "key": ("cancel_upload", {"key": half}),
        }
        for field in ("media_id", "file_name", "description"):
            message = {**FILE_MESSAGE, field: half}
            spoiled[field] = (
                "send_message_to_peer",
                {**LEGAL["send_message_to_peer"], "message": message},
            )
        for field, (method, params) in spoiled.items():
            with self.subTest(field):
                error = self.assert_refused(frame_of(method, params), RpcCode.INVALID_PARAMS)
                self.assertIn(field, error.message)
                error.message.encode()

    def test_a_number_beyond_a_float_is_refused(self) -> None:
        for number in ("1e999", "-1e999", "1" + "0" * 400):
            with self.subTest(number[:10]):
                text = frame_of(
                    "send_channel_message",
                    {**LEGAL["send_channel_message"], "message": {**FILE_MESSAGE, "expires_at": 0}},
                ).replace('"expires_at": 0', f'"expires_at": {number}')
                error = self.assert_refused(text, RpcCode.INVALID_PARAMS)
                self.assertIn("expires_at", error.message)

    def test_a_whole_number_is_accepted_where_a_fraction_may_stand(self) -> None:
        info = {
            "media_id": "m",
            "size": 1,
            "sha256": "0",
            "file_name": "",
            "content_type": "",
            "expires_at": 5,
        }
        self.assertIsInstance(decode_result(MediaInfo, info).expires_at, float)

    def test_a_message_that_breaks_the_32_kb_rule_never_becomes_one(self) -> None:
        large = {"type": "TEXT", "text": "x" * 32_769}
        params = {**LEGAL["send_message_to_peer"], "message": large}
        error = self.assert_refused(
            frame_of("send_message_to_peer", params), RpcCode.INVALID_PARAMS
        )
        self.assertIn("32,769", error.message)
        self.assertIs(error.request, SendMessageToPeer)

    def test_a_message_of_no_known_kind_or_damaged_base64_is_refused(self) -> None:
        for message in (
            {"text": "hi"},
            {"type": "VIDEO", "text": "hi"},
            {"type": "text", "text": "hi"},
            {"type": "TEXT"},
            {"type": "TEXT", "text": ""},
            {"type": "RAW", "raw_message": "AP8"},
            {"type": "RAW", "raw_message": "A P 8 ="},
            {"type": "RAW", "raw_message": "é==="},
            {"type": "RAW", "raw_message": [1, 2]},
            {"type": "FILE", "media_id": ""},
            "hi",
        ):
            with self.subTest(message):
                params = {**LEGAL["send_message_to_peer"], "message": message}
                text = frame_of("send_message_to_peer", params)
                self.assert_refused(text, RpcCode.INVALID_PARAMS)

    def test_a_strange_error_object_still_ends_its_call(self) -> None:
        bodies: list[Any] = [
            {},
            {"code": None, "message": None},
            {"code": "x", "message": ["list"]},
            {"code": 1, "message": "m", "data": 5},
            {"code": 1, "message": "m", "data": {"family": "OSError", "name": "errno"}},
            {"code": 1, "message": "m", "data": {"family": "LoginError", "name": "NO_SUCH"}},
            {"code": 1, "message": "m", "data": {"family": ["LoginError"], "name": {}}},
            {"code": 10**400, "message": "m"},
        ]
        texts = [json.dumps({"jsonrpc": "2.0", "id": 2, "error": body}) for body in bodies]
        texts.append('{"jsonrpc":"2.0","id":2,"error":{"code":1e999,"message":"m"}}')
        for text in texts:
            with self.subTest(text[:80]):
                frame = decode(text)
                assert isinstance(frame, Failure)
                self.assertEqual(frame.id, 2)
                self.assertIsInstance(frame.error, ProtocolError)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_frame_or_a_protocol_error(self, data: bytes) -> None:
        decoded_or_none(data)

    @given(st.text(max_size=200))
    def test_any_text_is_a_frame_or_a_protocol_error(self, text: str) -> None:
        decoded_or_none(text)

    @given(JSON, JSON, JSON, JSON, JSON)
    def test_any_json_in_an_envelope_is_a_frame_or_a_protocol_error(
        self, call_id: Any, method: Any, params: Any, result: Any, error: Any
    ) -> None:
        for frame in (
            {"id": call_id, "method": method, "params": params},
            {"id": 1, "result": result},
            {"id": 1, "error": error},
            {"id": 1, "error": {"code": call_id, "message": method, "data": params}},
        ):
            decoded_or_none(json.dumps({"jsonrpc": "2.0", **frame}))

    @settings(max_examples=300)
    @given(st.sampled_from(sorted(LEGAL)), st.data())
    def test_a_legal_frame_with_anything_in_any_place_never_does_harm(
        self, method: str, data: st.DataObject
    ) -> None:
        params = json.loads(json.dumps(LEGAL[method]))
        assume(params)
        target = params
        name = data.draw(st.sampled_from(sorted(target)))
        while isinstance(target[name], dict) and data.draw(st.booleans()):
            target = target[name]
            name = data.draw(st.sampled_from(sorted(target)))
        target[name] = data.draw(JSON)
        frame = decoded_or_none(frame_of(method, params))
        if isinstance(frame, Call):  # what was let in can be sent on
            self.assertEqual(decode(encode_call(frame.id, frame.request).encode()), frame)
        elif isinstance(frame, Notice):
            self.assertEqual(decode(encode_notice(frame.event).encode()), frame)

    @given(JSON)
    def test_any_json_as_a_result_fits_or_is_a_protocol_error(self, result: Any) -> None:
        for kind in RESULTS:
            try:
                value = decode_result(kind, result)
            except ProtocolError:
                continue
            self.assertIsInstance(value, kind)


class SecrecyTest(unittest.TestCase):
    def test_tokens_and_session_keys_are_not_printed(self) -> None:
        shown = repr(Login("app", "alice", token="secret-t", session="secret-s"))
        shown += repr(LoginResult("secret-r", False, 0, 8))
        self.assertNotIn("secret", shown)


class IdRuleTest(unittest.TestCase):
    ALLOWED = (
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$%&()+-:;<=.>?@[]^_{}|~,"
    )

    def test_exactly_the_reference_characters_are_allowed(self) -> None:
        allowed = {char for char in map(chr, range(0x250)) if id_problem("uid", char) is None}
        self.assertEqual(allowed, set(self.ALLOWED))

    def test_64_characters_are_allowed_and_65_are_not(self) -> None:
        self.assertIsNone(id_problem("uid", "u" * 64))
        self.assertEqual(id_problem("uid", "u" * 65), "uid has 65 characters; the limit is 64.")

    def test_what_is_wrong_is_named(self) -> None:
        for value, words in {
            "": "uid is empty",
            "null": '"null"',
            "a/b": "'/'",
            "a\n": r"'\n'",
            "猫": "'猫'",
            "a\ud800": r"'\ud800'",
        }.items():
            with self.subTest(value):
                problem = id_problem("uid", value)
                assert problem is not None
                self.assertIn(words, problem)
                self.assertTrue(problem.startswith("uid "))
        for value in (None, 7, b"alice", True):
            with self.subTest(value):
                self.assertIn(type(value).__name__, id_problem("uid", value) or "")

    def test_an_app_id_is_any_text_of_1_to_64_characters(self) -> None:
        for value in ("a", "a/b", "x" * 64):
            self.assertIsNone(app_id_problem(value))
        for value in ("", "x" * 65, None, 7):
            self.assertIn("app_id", app_id_problem(value) or "")

    def test_a_message_id_is_1_to_64_plain_characters(self) -> None:
        for value in ("a", "A-1_2.3:4", "x" * 64):
            self.assertIsNone(message_id_problem(value))
        for value in ("", "x" * 65, "a b", "a\n", "é", None, 7):
            self.assertIn("message_id", message_id_problem(value) or "")


class EncodingTest(unittest.TestCase):
    def test_a_value_that_json_cannot_hold_is_an_error_at_the_sender(self) -> None:
        for number in (math.nan, math.inf):
            message = RtmFileMessage("m", expires_at=number)
            with self.subTest(number), self.assertRaises(ValueError):
                encode_call(1, SendMessageToPeer("bob", message, "1"))

    def test_text_travels_as_utf_8_and_not_as_escapes(self) -> None:
        event = ChannelMessage(
            "c", RtmTextMessage("猫🐈"), "alice", "1", ReceivedMessageProperties(1)
        )
        self.assertIn("猫🐈".encode(), encode_notice(event).encode())

    def test_bytes_travel_as_standard_base64(self) -> None:
        data = bytes(range(256))
        request = SendMessageToPeer("bob", RtmRawMessage(data), "1")
        sent = json.loads(encode_call(1, request))["params"]["message"]["raw_message"]
        self.assertEqual(base64.b64decode(sent, validate=True), data)

    def test_a_notice_has_no_id_and_so_asks_for_no_answer(self) -> None:
        self.assertNotIn("id", json.loads(encode_notice(MemberJoined("c", "alice"))))
