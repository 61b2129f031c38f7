"""The error families: every name and number of the reference, and how errors are caught."""

from __future__ import annotations

import concurrent.futures
import copy
import pickle
import unittest

from rtm_sync import errors
from rtm_sync.errors import (
    ERROR_FAMILIES,
    DownloadCancelled,
    DownloadMediaError,
    JoinChannelError,
    LoginError,
    LoginErrorCode,
    LogoutError,
    RtmError,
    TransferCancelled,
    UploadCancelled,
    UploadMediaError,
    UploadMediaErrorCode,
)

# Family → prefix of its names → the rest of a name and its number, as in the reference.
REFERENCE: dict[str, tuple[str, dict[str, int]]] = {
    "LoginError": (
        "LOGIN_ERR_",
        {
            "UNKNOWN": 1,
            "REJECTED": 2,
            "INVALID_ARGUMENT": 3,
            "INVALID_APP_ID": 4,
            "INVALID_TOKEN": 5,
            "TOKEN_EXPIRED": 6,
            "NOT_AUTHORIZED": 7,
            "ALREADY_LOGIN": 8,
            "TIMEOUT": 9,
            "TOO_OFTEN": 10,
            "ABORTED_BY_LOGOUT": 201,
        },
    ),
    "LogoutError": ("LOGOUT_ERR_", {"USER_NOT_LOGGED_IN": 102}),
    "RenewTokenError": (
        "RENEW_TOKEN_ERR_",
        {
            "FAILURE": 1,
            "INVALID_ARGUMENT": 2,
            "REJECTED": 3,
            "TOO_OFTEN": 4,
            "TOKEN_EXPIRED": 5,
            "INVALID_TOKEN": 6,
            "USER_NOT_LOGGED_IN": 102,
            "ABORTED_BY_LOGOUT": 201,
        },
    ),
    "PeerMessageError": (
        "PEER_MESSAGE_ERR_",
        {
            "FAILURE": 1,
            "TIMEOUT": 2,
            "TOO_OFTEN": 5,
            "INVALID_USERID": 6,
            "INVALID_MESSAGE": 7,
            "INCOMPATIBLE_MESSAGE": 8,
            "USER_NOT_LOGGED_IN": 102,
        },
    ),
    "ChannelMessageError": (
        "CHANNEL_MESSAGE_ERR_",
        {
            "FAILURE": 1,
            "TIMEOUT": 2,
            "TOO_OFTEN": 3,
            "INVALID_MESSAGE": 4,
            "NOT_IN_CHANNEL": 5,
            "USER_NOT_LOGGED_IN": 102,
        },
    ),
    "CreateChannelError": ("CREATE_CHANNEL_ERR_", {"INVALID_ARGUMENT": 1}),
    "CreateInstanceError": ("CREATE_INSTANCE_ERR_", {"INVALID_ARGUMENT": 1}),
    "JoinChannelError": (
        "JOIN_CHANNEL_",  # one name, JOIN_CHANNEL_TIMEOUT, has no ERR_
        {
            "ERR_FAILURE": 1,
            "ERR_REJECTED": 2,
            "ERR_INVALID_ARGUMENT": 3,
            "TIMEOUT": 4,
            "ERR_EXCEED_LIMIT": 5,
            "ERR_ALREADY_JOINED": 6,
            "ERR_TOO_OFTEN": 7,
            "ERR_JOIN_SAME_CHANNEL_TOO_OFTEN": 8,
            "ERR_USER_NOT_LOGGED_IN": 102,
            "ERR_ABORTED_BY_LEAVE": 201,
            "ERR_ALREADY_JOINED_CHANNEL_OF_SAME_ID": 202,
        },
    ),
    "LeaveChannelError": (
        "LEAVE_CHANNEL_ERR_",
        {"FAILURE": 1, "REJECTED": 2, "NOT_IN_CHANNEL": 3, "USER_NOT_LOGGED_IN": 102},
    ),
    "GetMembersError": (
        "GET_MEMBERS_ERR_",
        {
            "FAILURE": 1,
            "REJECTED": 2,
            "TIMEOUT": 3,
            "TOO_OFTEN": 4,
            "NOT_IN_CHANNEL": 5,
            "USER_NOT_LOGGED_IN": 102,
        },
    ),
    "GetChannelMemberCountError": (
        "GET_CHANNEL_MEMBER_COUNT_ERR_",
        {
            "FAILURE": 1,
            "INVALID_ARGUMENT": 2,
            "TOO_OFTEN": 3,
            "TIMEOUT": 4,
            "EXCEED_LIMIT": 5,
            "NOT_INITIALIZED": 101,
            "USER_NOT_LOGGED_IN": 102,
        },
    ),
    "AttributeOperationError": (
        "ATTRIBUTE_OPERATION_ERR_",
        {
            "FAILURE": 2,
            "INVALID_ARGUMENT": 3,
            "SIZE_OVERFLOW": 4,
            "TOO_OFTEN": 5,
            "USER_NOT_FOUND": 6,
            "TIMEOUT": 7,
            "USER_NOT_LOGGED_IN": 102,
        },
    ),
    "QueryPeersOnlineStatusError": (
        "QUERY_PEERS_ONLINE_STATUS_ERR_",
        {
            "INVALID_ARGUMENT": 2,
            "REJECTED": 3,
            "TIMEOUT": 4,
            "TOO_OFTEN": 5,
            "USER_NOT_LOGGED_IN": 102,
        },
    ),
    "PeerSubscriptionStatusError": (
        "PEER_SUBSCRIPTION_STATUS_ERR_",
        {
            "FAILURE": 1,
            "INVALID_ARGUMENT": 2,
            "REJECTED": 3,
            "TIMEOUT": 4,
            "TOO_OFTEN": 5,
            "OVERFLOW": 6,
            "USER_NOT_LOGGED_IN": 102,
        },
    ),
    "QueryPeersBySubscriptionOptionError": (
        "QUERY_PEERS_BY_SUBSCRIPTION_OPTION_ERR_",
        {"FAILURE": 1, "TIMEOUT": 2, "TOO_OFTEN": 3, "USER_NOT_LOGGED_IN": 102},
    ),
    "InvitationApiCallError": (
        "INVITATION_API_CALL_ERR_",
        {
            "INVALID_ARGUMENT": 1,
            "NOT_STARTED": 2,
            "ALREADY_END": 3,
            "ALREADY_ACCEPT": 4,
            "ALREADY_SENT": 5,
        },
    ),
    "UploadMediaError": (
        "UPLOAD_MEDIA_ERR_",
        {
            "FAILURE": 1,
            "INVALID_ARGUMENT": 2,
            "TIMEOUT": 3,
            "SIZE_OVERFLOW": 4,
            "CONCURRENCY_LIMIT_EXCEEDED": 5,
            "INTERRUPTED": 6,
            "NOT_LOGGED_IN": 102,
        },
    ),
    "DownloadMediaError": (
        "DOWNLOAD_MEDIA_ERR_",
        {
            "FAILURE": 1,
            "INVALID_ARGUMENT": 2,
            "TIMEOUT": 3,
            "NOT_EXIST": 4,
            "CONCURRENCY_LIMIT_EXCEEDED": 5,
            "INTERRUPTED": 6,
            "NOT_LOGGED_IN": 102,
        },
    ),
}

EVERY_ERROR = [
    family(code, "Something.") for family in ERROR_FAMILIES.values() for code in family.Code
]


class CodeTableTest(unittest.TestCase):
    def test_the_families_are_those_of_the_reference(self) -> None:
        self.assertEqual(
            set(ERROR_FAMILIES), {*REFERENCE, "HistoryError", "SenderError"}
        )  # the reference does not have the last two

    def test_every_family_has_exactly_the_reference_names_and_numbers(self) -> None:
        for name, (prefix, numbers) in REFERENCE.items():
            with self.subTest(name):
                ours = {code.name: code.value for code in ERROR_FAMILIES[name].Code}
                self.assertEqual(ours, {prefix + rest: number for rest, number in numbers.items()})

    def test_no_family_gives_one_number_two_names(self) -> None:
        for name, family in ERROR_FAMILIES.items():
            with self.subTest(name):
                self.assertEqual(len(family.Code.__members__), len(list(family.Code)))

    def test_every_code_enum_is_found_under_the_family_name_plus_code(self) -> None:
        for name, family in ERROR_FAMILIES.items():
            with self.subTest(name):
                self.assertIs(getattr(errors, f"{name}Code"), family.Code)


class RtmErrorTest(unittest.TestCase):
    def test_an_error_shows_its_name_number_and_message(self) -> None:
        error = LoginError(LoginErrorCode.LOGIN_ERR_TIMEOUT, "No answer in 12 seconds.")
        self.assertEqual(str(error), "LOGIN_ERR_TIMEOUT (9): No answer in 12 seconds.")
        self.assertEqual(error.code, 9)
        self.assertEqual(error.message, "No answer in 12 seconds.")
        self.assertIsNone(error.cause)

    def test_a_cause_is_kept_and_chained(self) -> None:
        cause = ConnectionResetError("gone")
        error = LoginError(LoginErrorCode.LOGIN_ERR_UNKNOWN, "The connection broke.", cause)
        self.assertIs(error.cause, cause)
        self.assertIs(error.__cause__, cause)

    def test_every_family_is_caught_as_an_rtm_error(self) -> None:
        for error in EVERY_ERROR:
            with self.assertRaises(RtmError) as caught:
                raise error
            self.assertIs(caught.exception, error)

    def test_every_error_survives_pickling_and_copying(self) -> None:
        cancelled = UploadCancelled(UploadMediaErrorCode.UPLOAD_MEDIA_ERR_INTERRUPTED, "Cancelled.")
        for error in [*EVERY_ERROR, cancelled]:
            for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
                with self.subTest(str(error)):
                    self.assertIs(type(again), type(error))
                    self.assertIs(again.code, error.code)
                    self.assertEqual((again.message, str(again)), (error.message, str(error)))

    def test_pickling_leaves_out_the_cause_which_may_hold_a_socket(self) -> None:
        cause = OSError("broken")
        cause.socket = open  # type: ignore[attr-defined]
        error = LoginError(LoginErrorCode.LOGIN_ERR_UNKNOWN, "Broken.", cause)
        self.assertIsNone(pickle.loads(pickle.dumps(error)).cause)


class NamedTest(unittest.TestCase):
    def test_every_code_is_found_again_by_its_reason(self) -> None:
        for error in EVERY_ERROR:
            with self.subTest(error.code.name):
                self.assertIs(type(error).named(error.reason, "Again.").code, error.code)

    def test_the_same_meaning_gives_each_family_its_own_number(self) -> None:
        numbers = {
            name: family.named("TOO_OFTEN", "Too often.").code.value
            for name, family in ERROR_FAMILIES.items()
            if name in ("LoginError", "PeerMessageError", "ChannelMessageError", "JoinChannelError")
        }
        self.assertEqual(
            numbers,
            {
                "LoginError": 10,
                "PeerMessageError": 5,
                "ChannelMessageError": 3,
                "JoinChannelError": 7,
            },
        )

    def test_not_logged_in_is_found_with_and_without_user(self) -> None:
        for family in (UploadMediaError, DownloadMediaError, LogoutError, JoinChannelError):
            for suffix in ("NOT_LOGGED_IN", "USER_NOT_LOGGED_IN"):
                with self.subTest(family=family.__name__, suffix=suffix):
                    self.assertEqual(family.named(suffix, "Log in first.").code, 102)

    def test_the_one_irregular_name_is_found_and_read_back(self) -> None:
        error = JoinChannelError.named("TIMEOUT", "No answer.")
        self.assertEqual((error.code.name, error.code.value), ("JOIN_CHANNEL_TIMEOUT", 4))
        self.assertEqual(error.reason, "TIMEOUT")

    def test_an_unknown_meaning_is_a_failure_or_the_first_code(self) -> None:
        expected = {
            UploadMediaError: "UPLOAD_MEDIA_ERR_FAILURE",
            LoginError: "LOGIN_ERR_UNKNOWN",
            LogoutError: "LOGOUT_ERR_USER_NOT_LOGGED_IN",
        }
        for family, name in expected.items():
            with self.subTest(family.__name__):
                self.assertEqual(family.named("SUNSPOTS", "Odd.").code.name, name)

    def test_the_cause_is_passed_on(self) -> None:
        cause = OSError("disk")
        self.assertIs(UploadMediaError.named("FAILURE", "Not stored.", cause).cause, cause)


class CancelledTest(unittest.TestCase):
    def test_a_cancelled_transfer_is_caught_by_each_of_its_names(self) -> None:
        for kind, family in (
            (UploadCancelled, UploadMediaError),
            (DownloadCancelled, DownloadMediaError),
        ):
            error = kind.named("INTERRUPTED", "The transfer was cancelled.")
            names = (kind, family, TransferCancelled, concurrent.futures.CancelledError, RtmError)
            for name in names:
                with self.subTest(kind=kind.__name__, name=name.__name__):
                    with self.assertRaises(name) as caught:
                        raise error
                    self.assertEqual(caught.exception.code, 6)

    def test_a_cancelled_upload_is_not_taken_for_a_download(self) -> None:
        self.assertFalse(issubclass(UploadCancelled, DownloadMediaError))
        self.assertFalse(issubclass(DownloadCancelled, UploadMediaError))
