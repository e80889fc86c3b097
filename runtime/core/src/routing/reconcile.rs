//! What the settings ask for against what the log records: the routing in the log decides.

use super::{IdFrom, KeyFrom, Routing, Since, Span};
use crate::handler::HandlerName;
use crate::message::Offset;
use crate::topic::Pattern;

/// The routing that the settings ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub handler: HandlerName,
    pub subscribe: Vec<Pattern>,
    pub key: KeyFrom,
    pub id: IdFrom,
    pub shards: u16,
    /// Where a handler begins that the log does not know.
    pub start: Offset,
}

/// A change that would break order, dedup or state of what the handler already did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "handler `{handler}` was started with {field} = {recorded}, the settings now say {wanted}: its order, state and marks \
     depend on it, so set it back, or stop the host and move them along with `sluicebox handlers reroute {handler}`, or give \
     the handler a new name to begin anew"
)]
pub struct Fixed {
    pub handler: HandlerName,
    pub field: &'static str,
    pub recorded: String,
    pub wanted: String,
}

/// The routings to record: those in the log, with new handlers added and changed subscriptions from `now` on.
/// Handlers that the settings no longer name stay, so that they go on where they were when they come back.
pub fn reconcile(recorded: &[Routing], wanted: &[Wanted], now: Offset) -> Result<Vec<Routing>, Vec<Fixed>> {
    let mut routings = recorded.to_vec();
    let mut refused = vec![];
    for want in wanted {
        let Some(routing) = routings.iter_mut().find(|routing| routing.handler == want.handler) else {
            routings.push(Routing {
                handler: want.handler.clone(),
                key: want.key.clone(),
                id: want.id.clone(),
                shards: want.shards,
                recorded: now,
                identity: Since::default(),
                spans: vec![Span { after: want.start, subscribe: want.subscribe.clone() }],
            });
            continue;
        };
        let before = refused.len();
        refused.extend(fixed(routing, &want.key, &want.id, want.shards));
        let changed = routing.spans.last().is_none_or(|span| span.subscribe != want.subscribe);
        if refused.len() == before && changed {
            // Messages up to here are handled under the old subscription, however late that happens.
            routing.spans.push(Span { after: now, subscribe: want.subscribe.clone() });
        }
    }
    if refused.is_empty() { Ok(routings) } else { Err(refused) }
}

/// What of a recorded routing is otherwise than wanted and stays as it was while the handler runs.
pub fn fixed(routing: &Routing, key: &KeyFrom, id: &IdFrom, shards: u16) -> Vec<Fixed> {
    let fields = [
        ("key", describe_key(&routing.key), describe_key(key)),
        ("id", describe_id(&routing.id), describe_id(id)),
        ("shards", routing.shards.to_string(), shards.to_string()),
    ];
    let changed = fields.into_iter().filter(|(_, recorded, wanted)| recorded != wanted);
    changed
        .map(|(field, recorded, wanted)| Fixed { handler: routing.handler.clone(), field, recorded, wanted })
        .collect()
}

fn describe_key(key: &KeyFrom) -> String {
    match key {
        KeyFrom::Message => "the message's own key".into(),
        KeyFrom::All => "\"*\"".into(),
        KeyFrom::None => "false".into(),
        KeyFrom::Fields(fields) => super::describe(fields),
    }
}

fn describe_id(id: &IdFrom) -> String {
    match id {
        IdFrom::Message => "the message's own id".into(),
        IdFrom::Fields(fields) => super::describe(fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Field;

    fn wanted(subscribe: &str) -> Wanted {
        Wanted {
            handler: HandlerName::parse("order").unwrap(),
            subscribe: vec![Pattern::parse(subscribe).unwrap()],
            key: KeyFrom::Message,
            id: IdFrom::Message,
            shards: 8,
            start: Offset(5),
        }
    }

    #[test]
    fn a_new_handler_begins_at_its_start() {
        let routings = reconcile(&[], &[wanted("a")], Offset(9)).unwrap();
        assert_eq!((routings[0].start(), routings[0].recorded), (Offset(5), Offset(9)));
        assert_eq!(reconcile(&routings, &[wanted("a")], Offset(20)).unwrap(), routings);
    }

    #[test]
    fn a_changed_subscription_is_recorded_from_now_on() {
        let routings = reconcile(&[], &[wanted("a")], Offset(9)).unwrap();
        let routings = reconcile(&routings, &[wanted("b")], Offset(20)).unwrap();
        assert_eq!(routings[0].spans.iter().map(|span| span.after).collect::<Vec<_>>(), [Offset(5), Offset(20)]);
    }

    #[test]
    fn a_handler_that_is_gone_from_the_settings_stays_recorded() {
        let routings = reconcile(&[], &[wanted("a")], Offset(9)).unwrap();
        assert_eq!(reconcile(&routings, &[], Offset(20)).unwrap(), routings);
    }

    #[test]
    fn changed_key_id_or_shards_are_refused_with_a_hint() {
        let routings = reconcile(&[], &[wanted("a")], Offset(9)).unwrap();
        let id = IdFrom::Fields(vec![Field::Pointer("/id".into())]);
        let changed = Wanted { shards: 4, key: KeyFrom::All, id, ..wanted("a") };
        let refused = reconcile(&routings, &[changed], Offset(20)).unwrap_err();
        assert_eq!(refused.len(), 3);
        let id = "id = the message's own id, the settings now say `/id`";
        assert!(refused.iter().any(|refused| refused.to_string().contains(id)), "{refused:?}");
        let text = refused[0].to_string();
        assert!(text.contains("key = the message's own key, the settings now say \"*\""), "{text}");
        assert!(text.contains("`sluicebox handlers reroute order`"), "{text}");
        assert!(text.contains("give the handler a new name"), "{text}");
    }
}
