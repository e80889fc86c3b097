//! Handlers as native functions, for tests of what surrounds the sandbox.

use futures_util::future::BoxFuture;
use sluicebox::effects::{Effects, Outgoing, StateWrite};
use sluicebox::handler::Digest;
use sluicebox::invoke::{Call, Failure, Invoke};
use sluicebox::message::Headers;
use sluicebox::topic::Topic;
use std::sync::Arc;

/// A handler made of an async function.
pub struct Native<F>(F);

impl<F, R> Native<F>
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Effects, Failure>> + Send + 'static,
{
    #[allow(clippy::new_ret_no_self, reason = "tests only ever want it as a handler")]
    pub fn new(handle: F) -> Arc<dyn Invoke> {
        Arc::new(Self(handle))
    }
}

impl<F, R> Invoke for Native<F>
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Effects, Failure>> + Send + 'static,
{
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        Box::pin((self.0)(call))
    }

    fn uses_state(&self) -> bool {
        true
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

/// What the checker expects of a handled message: `n` of its key goes up by one and is published to `topic`.
pub fn count(call: &Call, topic: &str) -> Effects {
    let n = call.state.get("n").map_or(0, |n| String::from_utf8(n.to_vec()).unwrap().parse::<u64>().unwrap()) + 1;
    let output = Outgoing {
        topic: Topic::parse(topic).unwrap(),
        key: call.key.clone(),
        id: None,
        headers: Headers::default(),
        body: format!(r#"{{"source":{},"n":{n}}}"#, call.message.offset).into(),
        delay: None,
    };
    let writes = match call.key {
        Some(_) => vec![StateWrite { entry: "n".into(), value: Some(n.to_string().into()) }],
        None => vec![],
    };
    Effects { outputs: vec![output], writes, counts: vec![("ok".into(), 1)] }
}
