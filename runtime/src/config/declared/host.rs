//! The settings of the host itself.

use crate::config::kinds::{Address, Form, PORT_DEFAULT, Size, Span, Table, Whole, Word};
use crate::config::setting::{Above, Is, Means, Setting, settings};
use crate::config::settings::LogKind;
use crate::memory::Budget;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

settings! {
    NAMESPACE: Form, Is<&'static str> = Setting {
        path: "namespace",
        kind: Form("a name such as \"shop\": a-z, then up to 62 of a-z 0-9 _ -"),
        default: Is("default"),
        effect: "Names the log. It is shown by `sluicebox status`.",
        example: "namespace = \"shop\"",
        above: Some(Above { flag: "--namespace", variable: "SLUICEBOX_NAMESPACE" }),
    };
    LOG: Table, Means = Setting {
        path: "log",
        kind: Table("a section, [log]"),
        default: Means("an embedded log in `data` beside the file"),
        effect: "The durable sequence of all messages.",
        example: "kind = \"embedded\"",
        above: None,
    };
    LOG_KIND: Word<LogKind>, Is<LogKind> = Setting {
        path: "log.kind",
        kind: Word(&[("embedded", LogKind::Embedded), ("nats", LogKind::Nats), ("redis", LogKind::Redis)]),
        default: Is(LogKind::Embedded),
        effect: "Where messages are kept. `embedded` is a database in a directory of this machine, `nats` are two streams of \
                 a NATS server with JetStream, of version 2.11 or newer, `redis` is a stream and hashes of a Redis server, of version \
                 7 or newer, or Valkey. On these two any number of hosts may run on a namespace, and share the shards.",
        example: "kind = \"embedded\"",
        above: None,
    };
    LOG_PATH: Form, Is<&'static str> = Setting {
        path: "log.path",
        kind: Form("the path of a directory"),
        default: Is("data"),
        effect: "The directory of the embedded log. It is made if it is not there. A path in the file is relative to the \
                 file; one in the flag or variable to the current directory.",
        example: "path = \"/var/lib/shop\"",
        above: Some(Above { flag: "--data", variable: "SLUICEBOX_DATA" }),
    };
    LOG_URL: Form, Means = Setting {
        path: "log.url",
        kind: Form(
            "addresses such as \"nats://127.0.0.1:4222\", with commas between them, or one such as \"redis://127.0.0.1:6379\"",
        ),
        default: Means("\"nats://127.0.0.1:4222\" for `nats`, \"redis://127.0.0.1:6379\" for `redis`"),
        effect: "Where the servers of the log are, for `nats` and `redis`. Who connects is said by `login`. \
                 For `nats`, `tls://` demands encryption, and the log is in the streams `sluicebox-NAMESPACE` and \
                 `sluicebox-NAMESPACE-state`, which are made if they are not there; nothing else may publish to their subjects, \
                 `sb.NAMESPACE.>`. For `redis`, `rediss://` demands encryption, `unix:///path` is a socket of this machine, \
                 `redis://host:port/2` another database, and the log is in the keys that begin with `sb:{NAMESPACE}`; nothing \
                 else may write there but entries to `sb:{NAMESPACE}:in`. `redis+sentinel://a.example,b.example/mymaster` (or \
                 `rediss+sentinel://`) asks sentinels, on port 26379 unless it is said, which server is the master, and \
                 follows a failover: what the new master has not got is lost, and hosts that had more of the log say so and \
                 stop.",
        example: "kind = \"nats\"\nurl = \"nats://a.example:4222,nats://b.example:4222\"",
        above: None,
    };
    LOG_LOGIN: Form, Means = Setting {
        path: "log.login",
        kind: Form("a table such as { credentials_file = \"shop.creds\" }"),
        default: Means("none: whoever reaches the server may use it"),
        effect: "Who connects. For `nats`: one of a file of credentials, a token, the seed of an nkey, or a user with a \
                 password. For `redis`: a password, alone or of a user, who needs `~sb:* &sb:* +@all -@dangerous +info +config|get \
                 +function|list +function|load`, and `&CHANNEL` for what `egress` and `ingress_channels` name; sentinels that ask \
                 for a login get the same. What is in the files is never shown.",
        example: "login = { credentials_file = \"shop.creds\" }",
        above: None,
    };
    LOG_LOGIN_CREDENTIALS: Form, Means = Setting {
        path: "log.login.credentials_file",
        kind: Form("the path of a file of credentials, as `nsc` writes it"),
        default: Means("none"),
        effect: "A user's JWT and the seed of its key.",
        example: "login = { credentials_file = \"shop.creds\" }",
        above: None,
    };
    LOG_LOGIN_TOKEN: Form, Means = Setting {
        path: "log.login.server_token_file",
        kind: Form("the path of a file"),
        default: Means("none"),
        effect: "A file that holds the token that the server asks for.",
        example: "login = { server_token_file = \"nats-token\" }",
        above: None,
    };
    LOG_LOGIN_NKEY: Form, Means = Setting {
        path: "log.login.nkey_file",
        kind: Form("the path of a file"),
        default: Means("none"),
        effect: "A file that holds the seed of an nkey.",
        example: "login = { nkey_file = \"shop.nk\" }",
        above: None,
    };
    LOG_LOGIN_USER: Form, Means = Setting {
        path: "log.login.user",
        kind: Form("the name of a user, together with password_file"),
        default: Means("none"),
        effect: "The user of the server.",
        example: "login = { user = \"shop\", password_file = \"nats-password\" }",
        above: None,
    };
    LOG_LOGIN_PASSWORD: Form, Means = Setting {
        path: "log.login.password_file",
        kind: Form("the path of a file"),
        default: Means("none"),
        effect: "A file that holds the password of `user`; for `redis` also without one.",
        example: "login = { user = \"shop\", password_file = \"nats-password\" }",
        above: None,
    };
    LOG_CA_FILE: Form, Means = Setting {
        path: "log.ca_file",
        kind: Form("the path of a file of certificates in PEM"),
        default: Means("the certificates that this machine trusts"),
        effect: "Who may vouch for the servers, instead of those that the machine trusts. With it nothing is said to a server \
                 that does not encrypt.",
        example: "ca_file = \"ca.pem\"",
        above: None,
    };
    LOG_REPLICAS: Whole<usize>, Is<usize> = Setting {
        path: "log.replicas",
        kind: Whole(1..=5),
        default: Is(1),
        effect: "How many servers keep a copy, for `nats`, when the streams are made. With 3 the loss of one server loses \
                 nothing; with 1 what is acknowledged outlives kill -9, not the loss of the server.",
        example: "replicas = 3",
        above: None,
    };
    LOG_INGRESS: Form, Means = Setting {
        path: "log.ingress",
        kind: Form("a list of patterns, such as [\"orders.>\"]"),
        default: Means("none: messages come in over HTTP"),
        effect: "What any client of the server may send in: each message that a stream beside the log took is a message of the log \
                 once. For `nats` the patterns are subjects, which the stream `sluicebox-NAMESPACE-in` has: it is made if it is \
                 not there, and never changed; a publisher who waits for its answer knows that nothing is lost; \
                 `Nats-Msg-Id` is the id, `Sluicebox-Key` the key. For `redis` they are topics, and clients type `XADD \
                 sb:{NAMESPACE}:in * topic orders.new body TEXT`, with `key`, `id` and `header:NAME` as further fields if they \
                 like; what was taken up leaves that stream after an hour, and a `MAXLEN` of theirs would let go of \
                 more. What no message can be is a dead letter of `_ingress`.",
        example: "kind = \"nats\"\ningress = [\"orders.>\"]",
        above: None,
    };
    LOG_CHANNELS: Form, Means = Setting {
        path: "log.ingress_channels",
        kind: Form("a list of patterns, such as [\"sensors.>\"]"),
        default: Means("none"),
        effect: "Channels, for `redis`: what any client publishes there (`PUBLISH sensors.hall 21`) is a message on the topic of the \
                 channel's name, without key and id. At most once: the server keeps nothing of it, so what comes while no \
                 host listens, while a host takes over from another one, or faster than the log takes it, is gone; \
                 `ingress_messages_total{result=\"lost\"}` counts what a host had and lost. From the log on it is as \
                 safe as any message. One host listens for all.",
        example: "kind = \"redis\"\ningress_channels = [\"sensors.>\"]",
        above: None,
    };
    LOG_EGRESS: Form, Means = Setting {
        path: "log.egress",
        kind: Form("a list of patterns, such as [\"orders.accepted\"]"),
        default: Means("none: messages are read over HTTP"),
        effect: "Topics whose messages any client of the server may get: after its commit each is published to the subject, or \
                 for `redis` the channel, of that name, at least once, those of one key in their order. For `nats` `Nats-Msg-Id` is \
                 `NAMESPACE.OFFSET`, so a stream takes it once; `Sluicebox-Key`, `Sluicebox-Id` and `Sluicebox-Offset` are \
                 beside it. For `redis` a subscriber gets the body alone, so what tells two of them apart belongs into the \
                 body, and who does not listen at that moment does not get it: the server keeps nothing. No pattern \
                 may meet one of `ingress` or `ingress_channels`. `sluicebox handlers show _egress` says what waits.",
        example: "kind = \"nats\"\negress = [\"orders.accepted\"]",
        above: None,
    };
    LOG_RETAIN: Form, Means = Setting {
        path: "log.retain",
        kind: Form("false, or a table such as { age = \"7d\", max_bytes = \"50GiB\" }"),
        default: Means("{ age = \"7d\" }"),
        effect: "How long messages are kept. Only what every handler has settled is deleted: a handler that is behind holds \
                 back what it has not read. `false` keeps everything.",
        example: "retain = { age = \"30d\" }",
        above: None,
    };
    LOG_RETAIN_AGE: Form, Means = Setting {
        path: "log.retain.age",
        kind: Form("false, or a duration from \"1s\" to \"3650d\""),
        default: Means("\"7d\""),
        effect: "Messages older than this, by the log's time, are deleted. `false`: none is deleted for its age.",
        example: "retain = { age = \"12h\" }",
        above: None,
    };
    LOG_RETAIN_BYTES: Size, Means = Setting {
        path: "log.retain.max_bytes",
        // The log with its indexes and the reserve for commits does not work in less.
        kind: Size(64 << 20..=1 << 44),
        default: Means("none: the disk is the bound"),
        effect: "The data stays below this: the oldest messages are deleted, and when none may be, new messages are refused \
                 with 503 while commits go on from a reserve. Dead letters take at most a quarter of it, an equal part for \
                 each handler that the log knows: beyond it `dead.full` holds. Names of topics take at most an eighth, and \
                 never more than 256 MiB: beyond it messages on new topics are refused. Only for `embedded`: NATS and \
                 Redis servers have bounds of their own.",
        example: "retain = { max_bytes = \"50GiB\" }",
        above: None,
    };
    HOST: Table, Means = Setting {
        path: "host",
        kind: Table("a section, [host]"),
        default: Means("the defaults of what is in it"),
        effect: "What belongs to this host alone, whatever the log is.",
        example: "data = \"host\"",
        above: None,
    };
    HOST_NAME: Form, Means = Setting {
        path: "host.name",
        kind: Form("a name of 1 to 64 letters, digits and signs without white space"),
        default: Means("the name of the machine"),
        effect: "What `sluicebox hosts` calls this host, where several work on one log. For people: hosts tell each other apart \
                 by an id of their own.",
        example: "name = \"shop-1\"",
        above: Some(Above { flag: "--host-name", variable: "SLUICEBOX_HOST_NAME" }),
    };
    HOST_LEASE: Span, Is<Duration> = Setting {
        path: "host.lease",
        kind: Span(Duration::from_secs(1)..=Duration::from_secs(120)),
        default: Is(Duration::from_secs(5)),
        effect: "A host that the others did not hear for so long is taken for dead, and its shards are taken over; where several \
                 work on one log. It is heard five times as often. One that was only asleep can do no harm: what it had is \
                 fenced by then. All hosts should have the same.",
        example: "lease = \"10s\"",
        above: None,
    };
    HOST_DATA: Form, Means = Setting {
        path: "host.data",
        kind: Form("the path of a directory"),
        default: Means("the directory of the embedded log; `data` beside the file with another log"),
        effect: "Where the host keeps what is its own: compiled modules, and earlier versions of modules to go back to. It \
                 is made if it is not there; one host uses it at a time. A path is relative to the file. What is in another \
                 directory from before is not moved.",
        example: "data = \"/var/lib/shop-host\"",
        above: None,
    };
    HOST_CLOCK_SKEW_MAX: Span, Is<Duration> = Setting {
        path: "host.clock_skew_max",
        kind: Span(Duration::from_secs(1)..=Duration::from_secs(3650 * 24 * 3600)),
        default: Is(Duration::from_secs(5 * 60)),
        effect: "How far the machine's clock may be from the host's time at a start. The host's time goes on where the log \
                 left it, whoever sets the clock: up to here with a warning, beyond it the host does not start. Then put the \
                 clock right, or take it as it is with `sluicebox run --accept-clock`, which moves the times in the log along. \
                 That is the embedded log. On NATS and Redis hosts go by the server's clock: a machine's clock that differs is \
                 said and changes nothing, and neither `clock_skew_max` nor `--accept-clock` has a meaning there.",
        example: "clock_skew_max = \"1m\"",
        above: None,
    };
    HOST_WAITING: Size, Is<u64> = Setting {
        path: "host.waiting",
        kind: Size(8 << 20..=1 << 40),
        default: Is(Budget::BYTES_DEFAULT),
        effect: "Most memory for messages that wait, over all handlers and shards. When it is used up, what waits gives its \
                 memory back and is read from the log again when its turn comes; each shard may always hold a message.",
        example: "waiting = \"1GiB\"",
        above: None,
    };
    HOST_DELAYED: Table, Means = Setting {
        path: "host.delayed",
        kind: Table("a table, delayed = { … }"),
        default: Means("the defaults of what is in it"),
        effect: "How much publishers may delay (`publish --delay`) at a time: it is in memory. Beyond it they are refused until \
                 some is due or cancelled.",
        example: "delayed = { max = 10_000 }",
        above: None,
    };
    HOST_DELAYED_MAX: Whole<usize>, Is<usize> = Setting {
        path: "host.delayed.max",
        kind: Whole(1..=10_000_000),
        default: Is(100_000),
        effect: "Most messages.",
        example: "delayed = { max = 1_000_000 }",
        above: None,
    };
    HOST_DELAYED_BYTES: Size, Is<u64> = Setting {
        path: "host.delayed.max_bytes",
        // One message of any size has room.
        kind: Size(1 << 20..=1 << 36),
        default: Is(64 << 20),
        effect: "Most memory of these messages.",
        example: "delayed = { max_bytes = \"1GiB\" }",
        above: None,
    };
    HTTP: Table, Means = Setting {
        path: "http",
        kind: Table("a section, [http]"),
        default: Means("the defaults of what is in it"),
        effect: "The HTTP API, metrics and health checks.",
        example: "listen = \"127.0.0.1:8080\"",
        above: None,
    };
    HTTP_LISTEN: Address, Is<SocketAddr> = Setting {
        path: "http.listen",
        kind: Address,
        default: Is(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT_DEFAULT)),
        effect: "Where HTTP is served; port 0 is any free port. An address that other machines can reach needs \
                 `token_file`. `localhost` means 127.0.0.1; no other names are looked up.",
        example: "listen = \"127.0.0.1:9000\"",
        above: Some(Above { flag: "--listen", variable: "SLUICEBOX_LISTEN" }),
    };
    HTTP_TOKEN_FILE: Form, Means = Setting {
        path: "http.token_file",
        kind: Form("the path of a file"),
        default: Means("no token, which is allowed on loopback only"),
        effect: "A file that holds the token every request but the health checks must bear (`Authorization: Bearer …`). \
                 At least 16 bytes; white space around it is ignored. It is never shown.",
        example: "token_file = \"token\"",
        above: Some(Above { flag: "--token-file", variable: "SLUICEBOX_TOKEN_FILE" }),
    };
    HANDLERS: Form, Means = Setting {
        path: "handlers",
        kind: Form("sections such as [handlers.order]"),
        default: Means("none: messages are only kept"),
        effect: "The handlers by name: a-z, then up to 62 of a-z 0-9 _ -. The log knows a handler by its name: one that is \
                 renamed begins anew.",
        example: "[handlers.order]\nmodule = \"order.wasm\"\nsubscribe = [\"events.*\"]",
        above: None,
    };
}
