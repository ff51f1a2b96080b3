//! Editing a JSON document that belongs to somebody else: change only our keys, know what they held, put it back.
//!
//! A patch is a tree of the keys we manage. Objects are merged key by key. A list whose items are objects with a
//! `name` or a `key` is merged item by item; any other list, and every scalar, is one value. A path names a key in
//! the document as `containerSettings/executionConfigs/[eks]/repositoryURL`, with `[x]` for the list item called x.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// One key that has to change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) path: String,
    /// `None` when the key was absent.
    pub(crate) old: Option<Value>,
    pub(crate) new: Value,
}

/// The name by which a list item is known.
fn item_name(item: &Value) -> Option<&str> {
    item.get("name").or_else(|| item.get("key"))?.as_str()
}

fn is_named_list(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|items| !items.is_empty() && items.iter().all(|item| item_name(item).is_some()))
}

fn join(path: &str, key: &str) -> String {
    let key = key.replace('~', "~0").replace('/', "~1");
    if path.is_empty() { key } else { format!("{path}/{key}") }
}

fn item_key(name: &str) -> String {
    format!("[{name}]")
}

/// What must change in `document` so that it holds `patch`; empty when it does already. Where the document has
/// nothing, the highest missing key is one change with everything below it.
pub(crate) fn changes(document: &Value, patch: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    walk("", Some(document), patch, &mut found);
    found
}

fn walk(path: &str, current: Option<&Value>, wish: &Value, found: &mut Vec<Change>) {
    match (current, wish) {
        (Some(Value::Object(fields)), Value::Object(wanted)) if !wanted.is_empty() => {
            for (key, value) in wanted {
                walk(&join(path, key), fields.get(key), value, found);
            }
        }
        (Some(Value::Array(items)), Value::Array(wanted))
            if is_named_list(wish) && items.iter().all(Value::is_object) =>
        {
            for value in wanted {
                let name = item_name(value).unwrap_or_default();
                let item = items.iter().find(|item| item_name(item) == Some(name));
                walk(&join(path, &item_key(name)), item, value, found);
            }
        }
        (Some(value), wanted) if same(value, wanted) => {}
        (None, Value::Null) => {}
        (current, wanted) => {
            found.push(Change { path: path.to_owned(), old: current.cloned(), new: wanted.clone() });
        }
    }
}

/// Equality that does not tell 1 from 1.0: the other side may have read and written our numbers as doubles.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

/// Whether `document` holds everything `patch` wants.
pub(crate) fn holds(document: &Value, patch: &Value) -> bool {
    changes(document, patch).is_empty()
}

/// Makes the changes.
pub(crate) fn apply(document: &mut Value, changes: &[Change]) {
    for change in changes {
        put(document, &change.path, Some(&change.new));
    }
}

/// The value at `path`.
pub(crate) fn get<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    split(path).try_fold(document, |value, key| match value {
        Value::Array(items) => items.iter().find(|item| item_name(item) == selector(&key)),
        _ => value.get(&key),
    })
}

/// Sets the value at `path`, or removes the key. A parent that is missing is made, except a list item.
pub(crate) fn put(document: &mut Value, path: &str, new: Option<&Value>) {
    let mut keys: Vec<String> = split(path).collect();
    let Some(last) = keys.pop() else {
        *document = new.cloned().unwrap_or_default();
        return;
    };
    let mut parent = document;
    for key in keys {
        let next = match parent {
            Value::Array(items) => {
                let wanted = selector(&key).map(str::to_owned);
                items.iter_mut().find(|item| item_name(item) == wanted.as_deref())
            }
            Value::Object(fields) => {
                if new.is_some() {
                    Some(fields.entry(key).or_insert_with(|| json!({})))
                } else {
                    fields.get_mut(&key)
                }
            }
            _ => None,
        };
        let Some(next) = next else { return };
        parent = next;
    }
    match (parent, new) {
        (Value::Array(items), new) => {
            let at = items.iter().position(|item| item_name(item) == selector(&last));
            match (at, new) {
                (Some(at), Some(value)) => items[at] = value.clone(),
                (Some(at), None) => drop(items.remove(at)),
                (None, Some(value)) => items.push(value.clone()),
                (None, None) => {}
            }
        }
        (Value::Object(fields), Some(value)) => drop(fields.insert(last, value.clone())),
        (Value::Object(fields), None) => drop(fields.shift_remove(&last)),
        _ => {}
    }
}

fn split(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/').filter(|key| !key.is_empty()).map(|key| key.replace("~1", "/").replace("~0", "~"))
}

fn selector(key: &str) -> Option<&str> {
    key.strip_prefix('[')?.strip_suffix(']')
}

/// Merges `overlay` into `base`: objects key by key, named lists item by item, `null` takes a key out, everything
/// else is replaced.
pub(crate) fn overlaid(mut base: Value, overlay: Option<&Value>) -> Value {
    if let Some(overlay) = overlay {
        merge(&mut base, overlay);
    }
    base
}

fn merge(base: &mut Value, overlay: &Value) {
    match (base, overlay) {
        (Value::Object(fields), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    fields.shift_remove(key);
                } else {
                    merge(fields.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(items), Value::Array(over)) if is_named_list(overlay) => {
            for value in over {
                match items
                    .iter_mut()
                    .find(|item| item_name(item).is_some() && item_name(item) == item_name(value))
                {
                    Some(item) => merge(item, value),
                    None => items.push(value.clone()),
                }
            }
        }
        (base, overlay) => *base = overlay.clone(),
    }
}

/// The old values as they are recorded: absent keys are told from keys that held null.
pub(crate) fn recorded(changes: &[Change]) -> BTreeMap<String, Value> {
    let entry = |change: &Change| match &change.old {
        Some(value) => json!({"was": value}),
        None => json!({"absent": true}),
    };
    changes.iter().map(|change| (change.path.clone(), entry(change))).collect()
}

/// What an undo has to do with the recorded keys.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Restoration {
    /// Keys that still hold our value, with what they held before.
    pub(crate) restore: Vec<(String, Option<Value>)>,
    /// Keys that hold neither our value nor the old one: somebody changed them since.
    pub(crate) changed: Vec<String>,
}

/// Compares the recorded keys with the document and with what we wrote.
pub(crate) fn restoration(document: &Value, patch: &Value, before: &BTreeMap<String, Value>) -> Restoration {
    let mut plan = Restoration::default();
    for (path, entry) in before {
        let old = entry.get("was").cloned();
        let current = get(document, path);
        // An absent key and one that holds null, "" or nothing read the same in DSS.
        let is_old = match (&old, current) {
            (Some(old), Some(current)) => same(old, current),
            (Some(old), None) => is_unset(old),
            (None, Some(current)) => is_unset(current),
            (None, None) => true,
        };
        if is_old {
            continue;
        }
        let ours = get(patch, path);
        let still_ours = match (ours, current) {
            (Some(ours), Some(current)) => holds(current, ours),
            _ => false,
        };
        if still_ours {
            plan.restore.push((path.clone(), old));
        } else {
            plan.changed.push(path.clone());
        }
    }
    plan
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// `{key: value}` for the paths of `changes`, to show people.
pub(crate) fn shown(document: &Value, paths: &[String]) -> Value {
    let fields = paths.iter().map(|path| (path.clone(), get(document, path).cloned().unwrap_or_default()));
    Value::Object(fields.collect::<Map<_, _>>())
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({
            "spark": {"enabled": false, "configs": [
                {"name": "default", "conf": [{"key": "a", "value": "1"}], "k8s": {"managed": false}},
                {"name": "local", "conf": []}
            ]},
            "other": {"kept": true}
        })
    }

    fn patch() -> Value {
        json!({"spark": {"enabled": true, "configs": [
            {"name": "default", "conf": [{"key": "b", "value": "2"}], "k8s": {"managed": true, "url": "r"}},
            {"name": "new", "k8s": {"managed": true}}
        ]}})
    }

    #[test]
    fn only_our_keys_change_and_all_of_them_come_back() {
        let before = document();
        let mut edited = before.clone();
        let found = changes(&edited, &patch());
        apply(&mut edited, &found);
        assert!(holds(&edited, &patch()));
        assert_eq!(edited["other"], before["other"]);
        assert_eq!(
            edited["spark"]["configs"][0]["conf"],
            json!([{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
        );
        let plan = restoration(&edited, &patch(), &recorded(&found));
        assert!(plan.changed.is_empty());
        for (path, old) in &plan.restore {
            put(&mut edited, path, old.as_ref());
        }
        assert_eq!(edited, before);
        assert_eq!(
            restoration(&edited, &patch(), &recorded(&found)),
            Restoration::default(),
            "a second undo does nothing"
        );
    }

    #[test]
    fn a_key_somebody_changed_since_is_named_and_left() {
        let mut edited = document();
        let found = changes(&edited, &patch());
        apply(&mut edited, &found);
        put(&mut edited, "spark/configs/[default]/k8s/managed", Some(&json!("maybe")));
        let plan = restoration(&edited, &patch(), &recorded(&found));
        assert_eq!(plan.changed, ["spark/configs/[default]/k8s/managed"]);
        assert_eq!(plan.restore.len(), found.len() - 1);
    }

    #[test]
    fn an_empty_object_must_be_empty_and_numbers_may_become_doubles() {
        assert!(!holds(&json!({"config": {"region": "x"}}), &json!({"config": {}})));
        assert!(holds(&json!({"cpu": -1.0}), &json!({"cpu": -1})));
    }

    #[test]
    fn dropped_keys_are_found_by_comparing_again() {
        let sent = json!({"a": {"b": 1, "c": 2}});
        let stored = json!({"a": {"b": 1}});
        let dropped: Vec<String> = changes(&stored, &sent).into_iter().map(|change| change.path).collect();
        assert_eq!(dropped, ["a/c"]);
    }

    #[test]
    fn overlays_win_and_null_takes_out() {
        let base = json!({"params": {"mode": "A", "kept": 1}});
        assert_eq!(
            overlaid(base.clone(), Some(&json!({"params": {"mode": "B"}}))),
            json!({"params": {"mode": "B", "kept": 1}})
        );
        assert_eq!(
            overlaid(base.clone(), Some(&json!({"params": {"mode": null}}))),
            json!({"params": {"kept": 1}})
        );
        assert_eq!(overlaid(base.clone(), None), base);
    }
}
