"""The app that the servers of `test_servers` serve; its settings come from the environment."""

from __future__ import annotations

import os
import threading

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue

from rtm_sync import ReceivedMessageProperties, RtmMessage
from rtm_sync.flask.extension import Rtm

rtm = Rtm()


@rtm.on("MessageFromPeer")
def answer(message: RtmMessage, peer_id: str, _: ReceivedMessageProperties) -> None:
    rtm.client.send_message_to_peer(f"{current_app.name} got it", peer_id)


def create_app() -> Flask:
    app = Flask("served")
    app.config.from_prefixed_env("SERVED")
    rtm.init_app(app)
    app.register_blueprint(rtm.events_blueprint())

    @app.get("/")
    def who() -> ResponseReturnValue:
        own = [thread.name for thread in threading.enumerate() if "rtm-sync" in thread.name]
        return {"pid": os.getpid(), "threads": own}

    @app.get("/uid")
    def uid() -> ResponseReturnValue:
        rtm.join(app.config["ROOM"])
        return {"uid": rtm.client.uid, "pid": os.getpid()}

    @app.post("/photos")
    def photos() -> ResponseReturnValue:
        message = rtm.upload(request.files["photo"])
        rtm.sender.send_message_to_channel(message, app.config["ROOM"], uid="carol")
        return {"media_id": message.media_id, "type": type(message).__name__}

    @app.get("/photos/<media_id>")
    def photo(media_id: str) -> ResponseReturnValue:
        return rtm.send_media(media_id)

    return app
