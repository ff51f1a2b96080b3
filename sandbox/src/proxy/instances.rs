//! EC2 instances that take their time: `pending` after a launch, `shutting-down` after the end.
//!
//! moto starts and ends instances at once. The replies are rewritten where they name an instance in transition; what a
//! filter of the request selected is moto's choice.

use super::overlay::{self, End, Look, Overlay, Pace, Phase};
use super::reply::Reply;

/// Usual durations at scale 1, in milliseconds.
const LAUNCH_MS: u64 = 1_500;
const END_MS: u64 = 1_000;

/// Notes what a launch or an end has set in motion.
pub(super) fn begin(
    overlay: &mut Overlay,
    operation: &str,
    reply: &Reply,
    latency: f64,
    state: Option<&(u32, String)>,
) {
    let (showing, usual_ms, end) = match operation {
        "RunInstances" => ("pending", LAUNCH_MS, End::Active),
        "TerminateInstances" => ("shutting-down", END_MS, End::Gone),
        _ => return,
    };
    if !reply.is_success() {
        return;
    }
    let pace = match state {
        Some((looks, wanted)) => {
            let failed = end == End::Active && wanted == "FAILED";
            Pace { ms: 0, looks: *looks, end: if failed { End::Failed } else { end } }
        }
        None => Pace { ms: overlay::scaled(usual_ms, latency), looks: 1, end },
    };
    for id in ids(&String::from_utf8_lossy(&reply.body)) {
        overlay.instances.insert(id, Some(Phase::new(showing, pace, None)));
    }
}

/// Shows the instances of a reply as they stand; each look counts.
pub(super) fn show(overlay: &mut Overlay, reply: Reply) -> Reply {
    if overlay.instances.is_empty() || !reply.is_success() {
        return reply;
    }
    let Ok(text) = std::str::from_utf8(&reply.body) else { return reply };
    let mut text = text.to_owned();
    for id in ids(&text) {
        let Some(phase) = overlay.instances.get_mut(&id) else { continue };
        match overlay::look(phase) {
            Look::Settled | Look::Gone | Look::DeleteFailed => {
                overlay.instances.remove(&id);
            }
            Look::Failed => text = with_state(&text, &id, 48, "terminated"),
            Look::Showing(name) => {
                let code = if name == "pending" { 0 } else { 32 };
                text = with_state(&text, &id, code, &name);
            }
        }
    }
    Reply { body: text.into(), ..reply }
}

/// The instances a reply is about, each once.
fn ids(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split("<instanceId>")
        .skip(1)
        .filter_map(|rest| rest.split_once("</instanceId>"))
        .map(|(id, _)| id.to_owned())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The text with the state of one instance set.
fn with_state(text: &str, id: &str, code: u16, name: &str) -> String {
    let mark = format!("<instanceId>{id}</instanceId>");
    let (open, close) = ("<instanceState>", "</instanceState>");
    let Some(at) = text.find(&mark) else { return text.to_owned() };
    // The state stands behind the id and before the next instance.
    let until =
        text[at + mark.len()..].find("<instanceId>").map_or(text.len(), |next| at + mark.len() + next);
    let Some(start) = text[at..until].find(open).map(|start| at + start + open.len()) else {
        return text.to_owned();
    };
    let Some(end) = text[start..until].find(close).map(|end| start + end) else { return text.to_owned() };
    format!("{}<code>{code}</code><name>{name}</name>{}", &text[..start], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(state: &str) -> Reply {
        let one = |id: &str, state: &str| {
            format!(
                "<item><instanceId>{id}</instanceId><instanceState><code>16</code><name>{state}</name></instanceState></item>"
            )
        };
        let body = [one("i-a", "running"), one("i-b", state)].concat();
        Reply { status: 200, headers: Vec::new(), body: body.into() }
    }

    fn states(reply: &Reply) -> Vec<String> {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        text.split("<name>")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn an_instance_is_pending_and_then_what_moto_says() {
        let mut overlay = Overlay::default();
        let launched = Reply { body: "<instanceId>i-b</instanceId>".into(), ..reply("running") };
        begin(&mut overlay, "RunInstances", &launched, 0.0, Some(&(2, "ACTIVE".to_owned())));
        for wanted in ["pending", "pending", "running", "running"] {
            assert_eq!(states(&show(&mut overlay, reply("running"))), ["running", wanted]);
        }
        begin(&mut overlay, "RunInstances", &launched, 0.0, Some(&(0, "FAILED".to_owned())));
        assert_eq!(states(&show(&mut overlay, reply("running"))), ["running", "terminated"]);
        begin(&mut overlay, "TerminateInstances", &launched, 0.0, None);
        assert_eq!(states(&show(&mut overlay, reply("terminated"))), ["running", "shutting-down"]);
        assert_eq!(states(&show(&mut overlay, reply("terminated"))), ["running", "terminated"]);
    }
}
