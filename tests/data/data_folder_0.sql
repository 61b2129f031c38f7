BEGIN TRANSACTION;
CREATE TABLE bans (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (app_id, uid)
);
INSERT INTO "bans" VALUES('contract','mallory',4000000000.0);
CREATE TABLE history (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL, source TEXT NOT NULL, destination TEXT NOT NULL,
    is_channel INTEGER NOT NULL, ms INTEGER NOT NULL, expires_at REAL NOT NULL,
    message_id TEXT NOT NULL, message TEXT NOT NULL,
    UNIQUE (app_id, source, destination, is_channel, message_id)
);
INSERT INTO "history" VALUES(1,'contract','alice','bob',0,1,4000000000.0,'m1','{"source":"alice","destination":"bob","is_channel":false,"message_id":"m1","message":{"type":"TEXT","text":"1","description":""},"message_props":{"server_received_ts":1,"is_offline_message":false,"is_historical_message":true}}');
INSERT INTO "history" VALUES(2,'contract','alice','bob',0,1,4000000000.0,'mhéllo 🎉','{"source":"alice","destination":"bob","is_channel":false,"message_id":"mhéllo 🎉","message":{"type":"TEXT","text":"héllo 🎉","description":""},"message_props":{"server_received_ts":1,"is_offline_message":false,"is_historical_message":true}}');
CREATE TABLE media (
    media_id TEXT PRIMARY KEY, app_id TEXT NOT NULL, uid TEXT NOT NULL,
    size INTEGER NOT NULL, expires_at REAL NOT NULL, info TEXT NOT NULL
);
INSERT INTO "media" VALUES('mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm','contract','alice',3,4000000000.0,'{"media_id":"mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm","size":3,"sha256":"abababababababababababababababababababababababababababababababab","file_name":"naïve.txt","content_type":"text/plain","expires_at":4000000000.0}');
CREATE TABLE offline (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL, uid TEXT NOT NULL, expires_at REAL NOT NULL,
    sender TEXT NOT NULL, message_id TEXT NOT NULL, message TEXT NOT NULL,
    UNIQUE (app_id, uid, sender, message_id)
);
INSERT INTO "offline" VALUES(1,'contract','bob',4000000000.0,'alice','id-1','{"peer_id":"alice","message_id":"id-1","message":{"type":"TEXT","text":"1","description":""},"message_props":{"server_received_ts":1,"is_offline_message":true,"is_historical_message":false}}');
INSERT INTO "offline" VALUES(2,'contract','bob',4000000000.0,'alice','id-héllo 🎉','{"peer_id":"alice","message_id":"id-héllo 🎉","message":{"type":"TEXT","text":"héllo 🎉","description":""},"message_props":{"server_received_ts":1,"is_offline_message":true,"is_historical_message":false}}');
CREATE TABLE revocations (
    app_id TEXT NOT NULL, uid TEXT NOT NULL, before REAL NOT NULL, PRIMARY KEY (app_id, uid)
);
INSERT INTO "revocations" VALUES('contract','alice',1000000000.0);
CREATE INDEX offline_by_user ON offline (app_id, uid, key);
CREATE INDEX offline_by_end ON offline (expires_at);
CREATE INDEX history_by_destination ON history (app_id, destination, key);
CREATE INDEX history_by_source ON history (app_id, source, key);
CREATE INDEX history_by_end ON history (expires_at);
CREATE INDEX media_by_end ON media (expires_at);
CREATE INDEX media_by_user ON media (app_id, uid, size);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('offline',2);
INSERT INTO "sqlite_sequence" VALUES('history',2);
COMMIT;
