//! Users, groups, API keys, the licence and the login of the web interface.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::FakeDss;
use super::connections::TYPES;
use super::reply::{Answer, Call, Refusal, Reply, ok};
use super::state::{StoredKey, User, password_hash, sha256};

/// A global API key as `dsscli` and the API show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// Generated id.
    pub id: String,
    /// The key itself; only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Label given at creation.
    pub label: String,
    /// Description given at creation.
    pub description: String,
    /// Whether it has admin rights.
    pub admin: bool,
}

/// The API keys of an instance, as the host's `dsscli` handles them.
#[derive(Clone, Debug)]
pub struct ApiKeys(pub(super) FakeDss);

impl ApiKeys {
    /// Makes an admin key. The same label may be used again: the real tool does not mind either.
    pub fn create(&self, label: &str, description: &str) -> ApiKey {
        self.0.new_key(label, description, true)
    }

    /// All keys, without their secrets.
    pub fn list(&self) -> Vec<ApiKey> {
        let show = |key: &StoredKey| ApiKey {
            id: key.id.clone(),
            key: None,
            label: key.label.clone(),
            description: key.description.clone(),
            admin: key.admin,
        };
        self.0.read(|state| state.keys.iter().map(show).collect())
    }

    /// Deletes by id, or by the key itself as `dsscli api-key-delete` takes it; false when there is none.
    pub fn delete(&self, id_or_key: &str) -> bool {
        self.0.write(|state| {
            let before = state.keys.len();
            let hash = sha256(id_or_key);
            state.keys.retain(|key| key.id != id_or_key && key.key_sha256 != hash);
            state.keys.len() != before
        })
    }
}

impl FakeDss {
    fn new_key(&self, label: &str, description: &str, admin: bool) -> ApiKey {
        let secret = format!("dkuaps-{}", hex::encode(rand::random::<[u8; 16]>()));
        let id = self.write(|state| {
            let id = state.new_id("key");
            state.keys.push(StoredKey {
                id: id.clone(),
                label: label.to_owned(),
                description: description.to_owned(),
                key_sha256: sha256(&secret),
                admin,
            });
            id
        });
        ApiKey { id, key: Some(secret), label: label.to_owned(), description: description.to_owned(), admin }
    }

    /// The id and the admin right of a key this instance made.
    pub(super) fn authenticate(&self, key: &str) -> Option<(String, bool)> {
        let hash = sha256(key);
        self.read(|state| {
            state
                .keys
                .iter()
                .find(|stored| stored.key_sha256 == hash)
                .map(|stored| (stored.id.clone(), stored.admin))
        })
    }

    /// Whether a user may log in with a password.
    pub(super) fn login(&self, login: &str, password: &str) -> bool {
        let hash = password_hash(login, password);
        self.read(|state| {
            state
                .users
                .get(login)
                .is_some_and(|user| user.password_sha256 == hash && user.settings["enabled"] != false)
        })
    }

    pub(super) fn global_api_keys(&self, call: &Call, rest: &[&str]) -> Answer {
        let show = |key: &ApiKey| {
            json!({"id": key.id, "key": key.key.clone().unwrap_or_else(|| "**********".to_owned()), "label": key.label,
                   "description": key.description, "globalPermissions": {"admin": key.admin}})
        };
        match (call.method.as_str(), rest) {
            ("GET", []) => ok(json!(self.api_keys().list().iter().map(show).collect::<Vec<_>>())),
            ("POST", []) => {
                let body = call.json()?;
                let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
                let admin = body.pointer("/globalPermissions/admin") == Some(&json!(true));
                ok(show(&self.new_key(&text("label"), &text("description"), admin)))
            }
            ("GET", [id]) => {
                let keys = self.api_keys().list();
                let key = keys.iter().find(|key| key.id == *id);
                ok(show(key.ok_or_else(|| Refusal::missing(format!("API key not found: {id}")))?))
            }
            ("DELETE", [id]) => {
                if self.api_keys().delete(id) {
                    Ok(Reply::Empty)
                } else {
                    Err(Refusal::missing(format!("API key not found: {id}")))
                }
            }
            _ => Err(super::plugins::unknown_route(call)),
        }
    }

    pub(super) fn groups(&self, call: &Call, rest: &[&str]) -> Answer {
        let missing = |name: &str| Refusal::missing(format!("Group does not exist: {name}"));
        match (call.method.as_str(), rest) {
            ("GET", []) => ok(json!(self.read(|state| state.groups.values().cloned().collect::<Vec<_>>()))),
            ("POST", []) => {
                let body = call.json()?;
                let name = Call::text(&body, "name")?;
                let source = body["sourceType"].as_str().unwrap_or("LOCAL");
                let group = json!({"name": name, "description": body["description"].as_str().unwrap_or_default(),
                                   "sourceType": source, "admin": false});
                self.try_write(|state| {
                    if state.groups.contains_key(&name) {
                        self.duplicate(format!("Group '{name}' already exists"))?;
                    }
                    state.groups.insert(name.clone(), group);
                    Ok(())
                })?;
                Ok(Reply::Empty)
            }
            ("GET", [name]) => {
                ok(self.read(|state| state.groups.get(*name).cloned()).ok_or_else(|| missing(name))?)
            }
            ("PUT", [name]) => {
                let body = call.json()?;
                self.try_write(|state| {
                    let group = state.groups.get_mut(*name).ok_or_else(|| missing(name))?;
                    merge(group, &body, &["name"]);
                    Ok(())
                })?;
                ok(json!({"msg": format!("Updated group {name}")}))
            }
            ("DELETE", [name]) => {
                self.try_write(|state| state.groups.remove(*name).ok_or_else(|| missing(name)))?;
                Ok(Reply::Empty)
            }
            _ => Err(super::plugins::unknown_route(call)),
        }
    }

    pub(super) fn users(&self, call: &Call, rest: &[&str]) -> Answer {
        let missing = |login: &str| Refusal::missing(format!("User does not exist: {login}"));
        match (call.method.as_str(), rest) {
            ("GET", []) => ok(json!(self.read(|state| {
                state.users.values().map(|user| user.settings.clone()).collect::<Vec<_>>()
            }))),
            ("POST", []) => {
                let body = call.json()?;
                let login = Call::text(&body, "login")?;
                let mut settings =
                    json!({"enabled": true, "adminProperties": {}, "userProperties": {}, "credentials": {}});
                merge(&mut settings, &body, &["password"]);
                let password = body["password"].as_str().unwrap_or_default();
                let user = User { settings, password_sha256: password_hash(&login, password) };
                self.try_write(|state| {
                    if state.users.contains_key(&login) {
                        self.duplicate(format!("User '{login}' already exists"))?;
                    }
                    state.users.insert(login.clone(), user);
                    Ok(())
                })?;
                ok(json!({"msg": format!("Created user {login}")}))
            }
            ("GET", [login]) => ok(self
                .read(|state| state.users.get(*login).map(|user| user.settings.clone()))
                .ok_or_else(|| missing(login))?),
            ("PUT", [login]) => {
                let body = call.json()?;
                self.try_write(|state| {
                    let user = state.users.get_mut(*login).ok_or_else(|| missing(login))?;
                    if let Some(password) = body["password"].as_str().filter(|password| !password.is_empty())
                    {
                        user.password_sha256 = password_hash(login, password);
                    }
                    merge(&mut user.settings, &body, &["login", "password"]);
                    Ok(())
                })?;
                ok(json!({"msg": format!("Updated user {login}")}))
            }
            ("DELETE", [login]) => {
                self.try_write(|state| state.users.remove(*login).ok_or_else(|| missing(login)))?;
                Ok(Reply::Empty)
            }
            _ => Err(super::plugins::unknown_route(call)),
        }
    }

    pub(super) fn licensing(&self, call: &Call, rest: &[&str]) -> Answer {
        match (call.method.as_str(), rest) {
            ("GET", ["status"]) => {
                let license = self.read(|state| state.license.clone());
                let content = match license {
                    Some(license) => license
                        .get("content")
                        .filter(|content| content.is_object())
                        .cloned()
                        .unwrap_or(license),
                    None => json!({"licenseKind": "COMMUNITY", "properties": {}}),
                };
                ok(json!({
                    "base": {"licenseContent": content, "valid": true, "expired": false, "hasLicense": content["licenseKind"] != "COMMUNITY"},
                    "limits": {"licensedProfiles": {}},
                    "features": {"allowedConnectionTypes": TYPES}
                }))
            }
            ("POST", ["license"]) => {
                let body = call.json()?;
                if !body.is_object() {
                    return Err(Refusal::illegal("The license is not a JSON object"));
                }
                self.write(|state| state.license = Some(body));
                Ok(Reply::Empty)
            }
            _ => Err(super::plugins::unknown_route(call)),
        }
    }

    /// The licence as the installer's `-l` option puts it in.
    pub fn set_license(&self, license: Value) {
        self.write(|state| state.license = Some(license));
    }
}

fn merge(into: &mut Value, from: &Value, except: &[&str]) {
    let fields: BTreeMap<&String, &Value> = from.as_object().into_iter().flatten().collect();
    for (key, value) in fields {
        if !except.contains(&key.as_str()) {
            into[key.as_str()] = value.clone();
        }
    }
}
