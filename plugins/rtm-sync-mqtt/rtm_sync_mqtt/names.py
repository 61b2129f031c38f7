"""The parts of a broker's URL, and the names of the topics. No I/O.

All topics of an app are under `<prefix>/<app id>`. Ids chosen by applications are percent-encoded:

    u/<uid>/online/<session>            retained while the session exists; its will clears it
    u/<uid>/s/<session>/message         peer messages to the session
    u/<uid>/s/<session>/invitation      steps of invitations
    u/<uid>/s/<session>/receipt         receipts of messages that it sent
    u/<uid>/s/<session>/fence           its own markers: earlier retained messages have arrived
    u/<uid>/s/<session>/taken           a later login of the user replaces the session
    u/<uid>/mail/<sender>/<message id>  retained: an offline message
    u/<uid>/seen                        retained: ids of recently delivered messages
    c/<channel id>/message              channel messages
    c/<channel id>/member/<uid>/<session>   retained while the session is a member
    m/<media id>                        retained: a stored medium's name, size and digest
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

_PREFIX = "rtm"
_LONGEST_GRACE = 3600


@dataclass(frozen=True, slots=True)
class Address:
    """The broker's address and the options of the URL.

    Attributes:
        host: the broker's host name.
        port: the broker's port; by default 1883, or 8883 with TLS.
        is_secure: whether TLS is used.
        prefix: the first levels of all topics.
        username, password: the credentials for the broker; the login's token replaces the password.
        media: the URL of the media store, or None.
        grace: seconds for which the broker keeps a session without a connection (reference 1.3: a
            member that was away for 30 s has left).
    """

    host: str
    port: int
    is_secure: bool
    prefix: str
    username: str | None
    password: str | None
    media: str | None
    grace: int = 30

    @classmethod
    def of(cls, url: str) -> Address:
        """Parse `mqtt://user:password@host:1883/prefix?media=disk:///folder&grace=30`.

        Raises:
            ValueError: the URL does not have that form.
        """
        parts = urlsplit(url)
        shape = "The URL must be like mqtt://host:1883/prefix?media=disk:///folder"
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError(f"{shape}; this one has no host.")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{shape}: {error}.") from error
        options = parse_qs(parts.query)
        unknown = sorted(options.keys() - {"media", "grace"})
        if unknown:
            raise ValueError(f"{shape}; it has no option {', '.join(unknown)}.")
        prefix = unquote(parts.path).strip("/") or _PREFIX
        if set(prefix) & set("+#\0") or prefix.startswith("$"):
            raise ValueError(f"{shape}; topics cannot begin with {prefix!r}.")
        grace = options.get("grace", ["30"])[-1]
        if not grace.isdecimal() or not 1 <= int(grace) <= _LONGEST_GRACE:
            raise ValueError(
                f"grace is {grace!r}; it must be a whole number of seconds, 1 to "
                f"{_LONGEST_GRACE:,}."
            )
        is_secure = parts.scheme == "mqtts"
        return cls(
            parts.hostname,
            port or (8883 if is_secure else 1883),
            is_secure,
            prefix,
            None if parts.username is None else unquote(parts.username),
            None if parts.password is None else unquote(parts.password),
            options["media"][-1] if "media" in options else None,
            int(grace),
        )

    def __str__(self) -> str:
        return f"{'mqtts' if self.is_secure else 'mqtt'}://{self.host}:{self.port}"


class Topics:
    """The topic names of one app, for one session of one user.

    Whoever may write to a topic is named in it, so that a broker can enforce it: the last level of
    what is sent to others, and the user's own place otherwise. The README has the rules.
    """

    def __init__(self, prefix: str, app_id: str, uid: str, session: str) -> None:
        self._root = f"{prefix}/{level_of(app_id)}/"
        self.uid = uid
        self.session = session

    def online(self, uid: str, session: str = "+") -> str:
        return f"{self._root}u/{level_of(uid)}/online/{session}"

    def inbox(self, uid: str, session: str, kind: str) -> str:
        """Where this user sends something to a session."""
        return f"{self._root}u/{level_of(uid)}/s/{session}/{kind}/{level_of(self.uid)}"

    def own(self, kind: str) -> str:
        """Where this user sends something to the own session."""
        return self.inbox(self.uid, self.session, kind)

    def own_inbox(self) -> str:
        return f"{self._root}u/{level_of(self.uid)}/s/{self.session}/+/+"

    def receipts(self) -> str:
        """The response topic, to which the answering user appends a level with the own name."""
        return f"{self._root}u/{level_of(self.uid)}/s/{self.session}/receipt"

    def receipt(self, asked: str) -> str:
        """Where this user answers on a response topic."""
        return f"{asked}/{level_of(self.uid)}"

    def mail(self, uid: str, sender: str, message_id: str) -> str:
        return f"{self._root}u/{level_of(uid)}/mail/{level_of(sender)}/{message_id}"

    def own_mail(self) -> str:
        return f"{self._root}u/{level_of(self.uid)}/mail/+/+"

    def own_seen(self) -> str:
        return f"{self._root}u/{level_of(self.uid)}/seen"

    def channel(self, channel_id: str) -> str:
        """Where this user sends to a channel."""
        return f"{self._root}c/{level_of(channel_id)}/message/{level_of(self.uid)}"

    def channel_messages(self, channel_id: str) -> str:
        return f"{self._root}c/{level_of(channel_id)}/message/+"

    def member(self, channel_id: str, uid: str, session: str) -> str:
        return f"{self._root}c/{level_of(channel_id)}/member/{level_of(uid)}/{session}"

    def members(self, channel_id: str) -> str:
        return f"{self._root}c/{level_of(channel_id)}/member/+/+"

    def own_members(self) -> str:
        return f"{self._root}c/+/member/{level_of(self.uid)}/+"

    def medium(self, media_id: str) -> str:
        """Where this user records a medium."""
        return f"{self._root}m/{level_of(self.uid)}/{level_of(media_id)}"

    def media(self, media_id: str) -> str:
        """Where anybody may have recorded it."""
        return f"{self._root}m/+/{level_of(media_id)}"

    def parts(self, topic: str) -> list[str]:
        """The decoded levels of a topic after the app id; empty for a topic of another app."""
        if not topic.startswith(self._root):
            return []
        return [unquote(level) for level in topic[len(self._root) :].split("/")]


def level_of(name: str) -> str:
    """A user's or channel's id as one level of a topic; also the user's name at the broker."""
    return quote(name, safe="")
