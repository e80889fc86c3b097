//! A handler: what the log says of it, what operators asked of it, and how it fares on the running host.

use crate::backlog::{self, Budget, Place, Waiting};
use crate::commit::{Control, DeadFilter, DeadQuery, Over};
use crate::handler::{HandlerName, ShardId};
use crate::http::known_hosts::{HostView, SILENT};
use crate::http::running::{FailureView, Running, RunningHandler};
use crate::log::{HeadFilter, HeadQuery, Log, LogError, ShardStatus};
use crate::message::Offset;
use crate::routing::{Field, IdFrom, KeyFrom, Routing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// Open messages looked at to find the last failure where no host knows it.
const FAILED_MAX: usize = 100;

/// All handlers, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandlerPage {
    pub handlers: Vec<HandlerView>,
}

impl HandlerPage {
    pub fn of(handlers: Vec<HandlerView>) -> Self {
        Self { handlers: shown(handlers) }
    }
}

/// What a list shows of these: of the host's own handlers those that settings ask for, and others only while they have
/// something.
pub(super) fn shown(mut handlers: Vec<HandlerView>) -> Vec<HandlerView> {
    handlers.retain(|handler| match HandlerName::parse(&handler.name) {
        Ok(name) if name.is_reserved() => handler.has_something() || (handler.running.is_some() && !name.is_delay()),
        _ => true,
    });
    handlers
}

/// A handler as the log knows it and as it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandlerView {
    pub name: String,
    pub subscribe: Vec<String>,
    /// As the settings write it: absent, `false`, `"*"`, or where it is taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// As the settings write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// Of its routing; `shards` has those that the log knows by now.
    pub shard_count: u16,
    /// Its own messages that are not settled. Absent: the log has no routing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<BacklogView>,
    /// Messages that its slowest shard has not passed, of any topic: how much of the log it still has to read.
    pub behind: u64,
    pub open: u64,
    pub marks: u64,
    pub delayed: u64,
    pub dead: u64,
    /// The run that failed last: since the host started, or else as what it left in the log tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView>,
    /// What operators asked of any of its shards.
    pub control: ControlView,
    /// Absent: no host runs, or its settings do not name the handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningHandler>,
    /// By index.
    pub shards: Vec<ShardView>,
}

/// Messages of a handler that wait: open, behind an open one of their key, or not yet taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogView {
    pub messages: u64,
    /// There may be more: counting has bounds.
    pub at_least: bool,
    /// The log's time of the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}

impl From<Waiting> for BacklogView {
    fn from(Waiting { messages, at_least, oldest }: Waiting) -> Self {
        Self { messages, at_least, oldest: oldest.map(|time| time.to_string()) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardView {
    pub index: u16,
    pub term: u64,
    pub commit_number: u64,
    pub read: u64,
    pub behind: u64,
    pub open: u64,
    pub marks: u64,
    pub delayed: u64,
    pub dead: u64,
    pub control: ControlView,
    /// The host that holds it, as it says; absent: none says so, or the log can have one host only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<ShardHostView>,
}

/// Who works on a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHostView {
    pub id: String,
    pub name: String,
}

/// What operators asked for and is in force or under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlView {
    pub paused: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paused_keys: Vec<String>,
    pub tripped: bool,
    /// The version deployed or rolled back to, and the one in the file that it stands in for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<PinView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinView {
    pub digest: String,
    /// Absent: whatever is in the file of any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
}

/// An order about dead letters that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Offset of its command.
    pub command: u64,
    /// `retry` or `drop`.
    pub action: String,
    pub filter: crate::commit::DeadFilter,
}

impl From<&Control> for ControlView {
    fn from(control: &Control) -> Self {
        let pin = control.pin.map(|pin| PinView {
            digest: pin.digest.to_string(),
            over: match pin.over {
                Over::File(over) => Some(over.to_string()),
                Over::AnyFile => None,
            },
        });
        let jobs = control.jobs.iter().map(|job| JobView {
            command: job.command,
            action: match job.action {
                crate::commit::DeadAction::Retry => "retry".into(),
                crate::commit::DeadAction::Drop => "drop".into(),
            },
            filter: job.filter.clone(),
        });
        Self {
            paused: control.paused,
            paused_keys: control.paused_keys.iter().map(ToString::to_string).collect(),
            tripped: control.tripped,
            pin,
            jobs: jobs.collect(),
        }
    }
}

impl ControlView {
    /// Adds what was asked of another shard.
    fn join(&mut self, other: &ControlView) {
        self.paused |= other.paused;
        self.tripped |= other.tripped;
        self.pin = self.pin.take().or_else(|| other.pin.clone());
        self.paused_keys.extend(other.paused_keys.iter().cloned());
        for job in &other.jobs {
            if !self.jobs.contains(job) {
                self.jobs.push(job.clone());
            }
        }
    }
}

impl From<&ShardStatus> for ShardView {
    fn from(status: &ShardStatus) -> Self {
        Self {
            index: status.shard.index,
            term: status.term.0,
            commit_number: status.commit_number,
            read: status.read.0,
            behind: status.behind,
            open: status.open,
            marks: status.marks,
            delayed: status.delayed,
            dead: status.dead,
            control: ControlView::from(&status.control),
            host: None,
        }
    }
}

impl HandlerView {
    /// Every handler that the log knows, by name, with what only a running host knows, if there is one.
    pub async fn all(log: &dyn Log, running: Option<&dyn Running>) -> Result<Vec<Self>, LogError> {
        let mut handlers = Self::counted(log, running).await?;
        let modules = log.modules().await?;
        for handler in &mut handlers {
            if let Some(running) = &mut handler.running {
                running.add_deployed(modules.get(&running.name).map_or(&[], Vec::as_slice));
            }
            handler.find_last_failure(log).await?;
        }
        Ok(handlers)
    }

    /// As [`HandlerView::all`], for who only counts: the log is not asked for the last failures.
    pub async fn counted(log: &dyn Log, running: Option<&dyn Running>) -> Result<Vec<Self>, LogError> {
        // Asked first: a shard that passed it has nothing left of what is counted below.
        let end = log.end().await?;
        let (routings, shards) = (log.routings().await?.routings, log.status().await?);
        let mut handlers: BTreeMap<String, Self> =
            routings.iter().map(|routing| (routing.handler.to_string(), Self::new(routing))).collect();
        // How far the source of plain clients is taken up is no handler's, and says nothing about the log.
        for shard in shards.iter().filter(|shard| shard.shard.handler != HandlerName::intake()) {
            let name = shard.shard.handler.as_str();
            handlers.entry(name.to_owned()).or_insert_with(|| Self::unrouted(name)).add(shard);
        }
        let mut handlers: Vec<Self> = handlers.into_values().collect();
        handlers.iter_mut().for_each(|handler| handler.shards.sort_by_key(|shard| shard.index));
        if let Some(running) = running {
            follow(&mut handlers, running, end);
        }
        // Who has least to read comes first, so that one far behind takes nothing from the others.
        let mut budget = Budget::default();
        let mut order: Vec<&mut Self> = handlers.iter_mut().collect();
        order.sort_by_key(|handler| handler.behind);
        for handler in order {
            if let Some(routing) = routings.iter().find(|routing| routing.handler.as_str() == handler.name) {
                let place = handler.place(routing);
                handler.waiting = Some(backlog::count(log, routing, &place, end, &mut budget).await?.into());
            }
        }
        Ok(handlers)
    }

    async fn find_last_failure(&mut self, log: &dyn Log) -> Result<(), LogError> {
        self.last_failure = self.running.as_ref().and_then(|running| running.last_failure.clone());
        let Ok(handler) = HandlerName::parse(&self.name) else { return Ok(()) };
        if self.last_failure.is_none() && self.open > 0 {
            let filter = HeadFilter { attempts_min: 1, ..HeadFilter::default() };
            let query = HeadQuery { handler: handler.clone(), filter, after: Offset::START, heads_max: FAILED_MAX };
            // Who waits longest failed last, more or less: the record does not say when.
            let failed = log.heads(query).await?;
            self.last_failure = failed.iter().max_by_key(|failed| failed.head.due).map(FailureView::from);
        }
        if self.last_failure.is_none() && self.dead > 0 {
            let filter = DeadFilter { handler: Some(handler), ..DeadFilter::default() };
            let newest = log.dead(DeadQuery::newest(filter, 1)).await?;
            self.last_failure = newest.first().map(|newest| FailureView::from(&newest.letter));
        }
        Ok(())
    }

    /// How far its shards are; one that was never claimed is where the routing begins.
    pub(super) fn place(&self, routing: &Routing) -> Place {
        let mut read = vec![routing.start(); usize::from(routing.shards)];
        for shard in &self.shards {
            if let Some(read) = read.get_mut(usize::from(shard.index)) {
                *read = Offset(shard.read);
            }
        }
        Place { read, open: self.open }
    }

    fn has_something(&self) -> bool {
        let waits = self.waiting.as_ref().is_some_and(|waiting| waiting.messages > 0);
        waits || self.open > 0 || self.delayed > 0 || self.dead > 0 || self.last_failure.is_some()
    }

    fn new(routing: &Routing) -> Self {
        let subscribe = routing.spans.last().map(|span| span.subscribe.as_slice()).unwrap_or_default();
        Self {
            subscribe: subscribe.iter().map(ToString::to_string).collect(),
            key: match &routing.key {
                KeyFrom::Message => None,
                KeyFrom::All => Some(json!("*")),
                KeyFrom::None => Some(json!(false)),
                KeyFrom::Fields(fields) => Some(as_typed(fields)),
            },
            id: match &routing.id {
                IdFrom::Message => None,
                IdFrom::Fields(fields) => Some(as_typed(fields)),
            },
            shard_count: routing.shards,
            ..Self::unrouted(routing.handler.as_str())
        }
    }

    fn unrouted(name: &str) -> Self {
        Self {
            name: name.into(),
            subscribe: vec![],
            key: None,
            id: None,
            shard_count: 0,
            waiting: None,
            behind: 0,
            open: 0,
            marks: 0,
            delayed: 0,
            dead: 0,
            last_failure: None,
            control: ControlView::default(),
            running: None,
            shards: vec![],
        }
    }

    fn add(&mut self, shard: &ShardStatus) {
        self.behind = self.behind.max(shard.behind);
        self.open += shard.open;
        self.marks += shard.marks;
        self.delayed += shard.delayed;
        self.dead += shard.dead;
        let shard = ShardView::from(shard);
        self.control.join(&shard.control);
        self.shards.push(shard);
    }

    /// Adds what only the running host knows. `end` is the log's: shards that had nothing to write are further than
    /// their records.
    fn follow(&mut self, running: &dyn Running, hosts: &[HostView], mine: Option<RunningHandler>, end: Offset) {
        self.running = mine;
        let Ok(name) = HandlerName::parse(&self.name) else { return };
        for shard in &mut self.shards {
            let holder = hosts.iter().find(|host| host.state != SILENT && host.holds(&self.name, shard.index));
            shard.host = holder.map(|host| ShardHostView { id: host.id.clone(), name: host.name.clone() });
            let id = ShardId { handler: name.clone(), index: shard.index };
            let Some(passed) = running.passed(&id).filter(|passed| passed.0 > shard.read) else { continue };
            shard.read = passed.0;
            if passed >= end {
                shard.behind = 0;
            }
        }
        self.behind = self.shards.iter().map(|shard| shard.behind).max().unwrap_or(0);
    }
}

/// Adds what only the running host knows of these handlers.
fn follow(handlers: &mut [HandlerView], running: &dyn Running, end: Offset) {
    let mut mine: HashMap<String, _> =
        running.handlers().into_iter().map(|handler| (handler.name.to_string(), handler)).collect();
    let hosts = running.hosts();
    for handler in handlers {
        let own = mine.remove(&handler.name);
        handler.follow(running, &hosts, own, end);
    }
}

/// Fields as the settings write them.
fn as_typed(fields: &[Field]) -> Value {
    let typed = fields.iter().map(|field| match field {
        Field::Pointer(pointer) => pointer.clone(),
        Field::Header(name) => format!("header:{name}"),
        Field::TopicToken(number) => format!("topic:{number}"),
    });
    typed.collect()
}
