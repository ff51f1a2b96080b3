//! Whatever stands in a document that is not ours survives our edit, value by value and byte by byte, and our undo
//! leaves the document as it was.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value, json};

use super::{apply, changes, holds, item_name, put, recorded, restoration};

/// SplitMix64: the same cases for ever.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.draw() % n as u64).expect("below a length")
    }

    /// Keys of ours among strange ones.
    fn key(&mut self) -> String {
        const KEYS: &[&str] = &[
            "name",
            "key",
            "value",
            "conf",
            "type",
            "executionConfigs",
            "buildConfigs",
            "repositoryURL",
            "prePushMode",
            "kubernetesSettings",
            "flavor",
            "a/b",
            "~",
            "~1",
            "[eks]",
            "ünïcode\u{0}",
            "x",
        ];
        KEYS[self.below(KEYS.len())].to_owned()
    }

    fn text(&mut self) -> String {
        const TEXTS: &[&str] = &[
            "",
            "eks",
            "eks-build",
            "default",
            "true",
            "null",
            "e:AES:00",
            "a/b",
            "[eks]",
            "ü\u{202e}\n\"\\",
            "1.0",
        ];
        TEXTS[self.below(TEXTS.len())].to_owned()
    }

    fn number(&mut self) -> Number {
        match self.below(4) {
            0 => self.draw().into(),
            1 => (self.draw().cast_signed()).into(),
            // Any double that is a number: these are what a careless reader changes in the last place.
            2 => loop {
                if let Some(number) = Number::from_f64(f64::from_bits(self.draw())) {
                    break number;
                }
            },
            _ => Number::from_f64(-1.0).expect("a number"),
        }
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth == 0 { 4 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.draw().is_multiple_of(2)),
            2 => Value::Number(self.number()),
            3 => Value::String(self.text()),
            4 => {
                let count = self.below(4);
                Value::Array((0..count).map(|_| self.value(depth - 1)).collect())
            }
            5 => self.named_list(depth - 1),
            _ => self.object(depth - 1),
        }
    }

    fn object(&mut self, depth: u32) -> Value {
        let count = self.below(5);
        Value::Object((0..count).map(|_| (self.key(), self.value(depth))).collect::<Map<_, _>>())
    }

    /// A list of things with names, some without, now and then one of ours.
    fn named_list(&mut self, depth: u32) -> Value {
        let count = self.below(4);
        let mut items = Vec::new();
        for _ in 0..count {
            let mut item = self.object(depth);
            if self.below(4) > 0 {
                let name = self.text();
                item["name"] = json!(name);
            }
            items.push(item);
        }
        Value::Array(items)
    }

    /// A document as DSS may have it: the places we write to are there or not, with other people's things in them.
    fn document(&mut self) -> Value {
        let mut document = self.object(4);
        for (section, lists) in [
            ("containerSettings", &["executionConfigs", "buildConfigs"][..]),
            ("sparkSettings", &["executionConfigs"]),
            ("metastoreCatalogsSettings", &[]),
        ] {
            if self.below(4) == 0 {
                continue;
            }
            let mut part = self.object(3);
            for list in lists {
                if self.below(3) > 0 {
                    part[*list] = self.named_list(3);
                }
            }
            document[section] = part;
        }
        document
    }
}

fn patches() -> Vec<Value> {
    let registry = "1.dkr.ecr.eu-west-1.amazonaws.com";
    vec![
        json!({"containerSettings": {"executionConfigs": [{"name": "eks", "type": "KUBERNETES", "allowedGroups": [],
            "kubernetesResources": {"cpuRequest": -1.0, "customLimits": []}, "repositoryURL": registry, "prePushMode": "ECR"}],
            "defaultExecutionConfig": "eks"}}),
        json!({"containerSettings": {
            "buildConfigs": [{"name": "eks-build", "dockerBuilderConfig": {"pushConfigs": [{"repositoryURL": registry}]}}],
            "executionConfigs": [{"name": "eks", "imageBuildConfig": "eks-build"}]}}),
        json!({"sparkSettings": {"sparkEnabled": true, "executionConfigs": [
            {"name": "default", "conf": [{"key": "x", "value": "4g"}], "kubernetesSettings": {"managedKubernetes": true}},
            {"name": "a/b", "kubernetesSettings": {"managedKubernetes": true}}]}}),
        json!({"metastoreCatalogsSettings": {"synchronizeTo": {"flavor": "GLUE", "glueConnection": "s3"}}}),
        json!({"defaultK8sClusterId": "eks"}),
    ]
}

/// Every leaf by its keys; list items by name where they have one and it is the first of it, else by number from the
/// front, which an item added at the end does not move.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut BTreeMap<Vec<String>, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                path.push(format!(".{key}"));
                leaves(value, path, found);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (ix, item) in items.iter().enumerate() {
                let name = item_name(item);
                let first =
                    name.is_some() && items.iter().position(|other| item_name(other) == name) == Some(ix);
                path.push(if first { format!("[{}]", name.unwrap_or_default()) } else { format!("#{ix}") });
                leaves(item, path, found);
                path.pop();
            }
        }
        value => drop(found.insert(path.clone(), value.to_string())),
    }
}

fn all(value: &Value) -> BTreeMap<Vec<String>, String> {
    let mut found = BTreeMap::new();
    leaves(value, &mut Vec::new(), &mut found);
    found
}

/// Whether `path` lies at or below a changed key, or is an empty place that a changed key filled.
fn touched(path: &[String], changed: &[Vec<String>]) -> bool {
    changed.iter().any(|change| path.starts_with(change) || change.starts_with(path))
}

fn split(path: &str) -> Vec<String> {
    super::split(path)
        .map(|key| if key.starts_with('[') && key.ends_with(']') { key } else { format!(".{key}") })
        .collect()
}

#[test]
fn foreign_values_survive_byte_for_byte_and_the_undo_leaves_the_document_as_it_was() {
    let mut cases = 0u32;
    let mut edits = 0usize;
    for seed in 0..4_000 {
        let mut chance = Chance(seed);
        // As it comes over the wire: what is read must be written the same.
        let wire = chance.document().to_string();
        let original: Value = serde_json::from_str(&wire).expect("our own JSON");
        assert_eq!(original.to_string(), wire, "seed {seed}: reading and writing alone changed it");
        for patch in patches() {
            let found = changes(&original, &patch);
            let mut edited = original.clone();
            apply(&mut edited, &found);
            assert!(holds(&edited, &patch), "seed {seed}: {patch} is not in {edited}");
            let changed: Vec<Vec<String>> = found.iter().map(|change| split(&change.path)).collect();
            let after = all(&edited);
            for (path, text) in all(&original) {
                if touched(&path, &changed) {
                    continue;
                }
                assert_eq!(
                    after.get(&path),
                    Some(&text),
                    "seed {seed}: {path:?} of {original} after {patch}"
                );
                cases += 1;
            }
            edits += found.len();
            let plan = restoration(&edited, &patch, &recorded(&found));
            assert!(plan.changed.is_empty(), "seed {seed}: {:?}", plan.changed);
            for (path, old) in &plan.restore {
                put(&mut edited, path, old.as_ref());
            }
            assert!(
                unset_alike(&edited, &original),
                "seed {seed}: the undo of {patch} left\n{edited}\ninstead of\n{original}"
            );
        }
    }
    assert!(cases > 100_000 && edits > 20_000, "{cases} foreign values, {edits} edits");
}

/// Equality as DSS reads it: an absent key and one that holds nothing are the same.
fn unset_alike(left: &Value, right: &Value) -> bool {
    let text = |value: &Value| {
        let kept = all(value)
            .into_iter()
            .filter(|(_, text)| !matches!(text.as_str(), "null" | "\"\"" | "[]" | "{}"));
        kept.collect::<BTreeMap<_, _>>()
    };
    text(left) == text(right)
}
