//! What every kind of log refuses before it writes a byte.

use sluicebox_core::commit::ShardCommit;
use sluicebox_core::effects::{ENTRY_NAME_BYTES_MAX, VALUE_BYTES_MAX};
use sluicebox_core::message::{MessageError, NewMessage, Offset};

/// The first message that breaks a limit.
pub(crate) fn check_messages(messages: &[NewMessage]) -> Result<(), MessageError> {
    messages.iter().try_for_each(NewMessage::check)
}

/// Why this content can never be written, if so. Sandboxes check the same limits when a run asks for an effect, so
/// this only meets what came another way. `read` and `controlled` are those of the shard's last commit.
pub(crate) fn check_commit(commit: &ShardCommit, read: Offset, controlled: Offset) -> Result<(), String> {
    if commit.read < read {
        return Err(format!("its read {} is before {read}", commit.read));
    }
    if commit.controlled < controlled {
        return Err(format!("its controlled {} is before {controlled}", commit.controlled));
    }
    check_messages(&commit.outputs).map_err(|error| format!("an output cannot be appended: {error}"))?;
    for delayed in &commit.delayed_put {
        delayed.message.check().map_err(|error| format!("a delayed message cannot be appended: {error}"))?;
    }
    for write in commit.state.iter().flat_map(|key| &key.writes) {
        let (entry_bytes, value_bytes) = (write.entry.len(), write.value.as_ref().map_or(0, |value| value.len()));
        if entry_bytes > ENTRY_NAME_BYTES_MAX {
            return Err(format!(
                "the name of a state entry has {entry_bytes} bytes, at most {ENTRY_NAME_BYTES_MAX} are allowed"
            ));
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(format!("a state value has {value_bytes} bytes, at most {VALUE_BYTES_MAX} are allowed"));
        }
    }
    Ok(())
}
