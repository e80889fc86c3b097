//! Redis sentinels for a test, which watch a server of it.

use super::nats_cluster;
use super::redis::{OwnServer, ask, command_of, program};
use super::servers::{Says, Server, free_port};

/// Three sentinels of one master, which they call so.
pub struct Sentinels {
    _servers: Vec<Server>,
    ports: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Sentinels {
    pub const MASTER: &str = "mymaster";

    /// Of one that has a replica; all know of each other when this returns.
    pub async fn of(master: &OwnServer) -> Self {
        let sentinels = Self::start(master, "");
        sentinels
            .until("they know each other and a replica", |found| {
                found("num-other-sentinels") == "2" && found("num-slaves") != "0"
            })
            .await;
        sentinels
    }

    /// With these lines in the settings of each.
    pub fn start(master: &OwnServer, lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<String> = (0..3).map(|_| free_port()).collect();
        let servers = ports.iter().map(|port| {
            let settings = folder.path().join(format!("{port}.conf"));
            let name = Self::MASTER;
            let text = format!(
                "bind 127.0.0.1\nport {port}\nsentinel monitor {name} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n{lines}\n",
                master.port()
            );
            std::fs::write(&settings, text).unwrap();
            let mut command = command_of(&program());
            command.arg(settings).arg("--sentinel").arg("--dir").arg(folder.path());
            Server::start(&command, None, Says::ToOutput, |line| line.contains("+monitor master"))
        });
        Self { _servers: servers.collect(), ports: ports.clone(), _folder: folder }
    }

    /// What a host is told.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/{}", hosts.join(","), Self::MASTER)
    }

    /// Until another server is the master for all of them.
    pub async fn until_failed_over(&self, from: &OwnServer) {
        self.until("another server is the master", |found| found("port") != from.port().to_string()).await;
    }

    async fn until(&self, what: &str, is_so: impl Fn(&dyn Fn(&str) -> String) -> bool) {
        let holds = |port: &String| {
            let said = ask(&format!("redis://127.0.0.1:{port}"), &["SENTINEL", "MASTER", Self::MASTER]);
            let words: Vec<&str> = said.lines().filter(|line| !line.starts_with(['$', '*'])).collect();
            let field = |name: &str| {
                let mut pairs = words.chunks(2);
                pairs.find_map(|pair| (pair[0] == name).then(|| pair[1].to_owned())).unwrap_or_default()
            };
            is_so(&field)
        };
        nats_cluster::until(what, async || self.ports.iter().all(holds)).await;
    }
}
