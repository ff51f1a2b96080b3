//! Looking at runs: in the store when nobody owns it, else through the owner's socket.

use std::path::Path;
use std::sync::Arc;

use dssflow_engine::Graph;
use dssflow_engine::event::Event;
use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::run::view::{self, RunView};
use dssflow_engine::runtime::engine;
use dssflow_engine::store::{ListPage, ListQuery, Store as _};
use dssflow_store::SledStore;

use crate::control::client::Client;
use crate::control::{self, Obstacles};
use crate::error::{Code, CommandError, CommandResult};
use crate::owner::{self, Opened};
use crate::suggest;

/// How many runs a suggestion is looked for in.
const SUGGEST_AMONG: usize = 1000;

/// Where runs are read.
pub(crate) enum Access {
    /// In the store, which this process holds while it looks.
    Store(Arc<SledStore>),
    /// From the process that owns the store.
    Owner(Box<Client>),
}

impl Access {
    /// Finds out where runs can be read.
    ///
    /// # Errors
    /// When there is no store, it cannot be opened, or its owner cannot be asked.
    pub(crate) async fn open(dir: &Path) -> CommandResult<Self> {
        Self::open_as(dir, "dssflow (looking)").await
    }

    /// The same for a command that may write: `command` tells others what this process does.
    ///
    /// # Errors
    /// As [`Access::open`].
    pub(crate) async fn open_as(dir: &Path, command: &str) -> CommandResult<Self> {
        match owner::open(dir, command, false).await? {
            Opened::Here(store) => Ok(Self::Store(store)),
            Opened::Elsewhere(holder) => match control::socket_path(dir) {
                Some(socket) => Ok(Self::Owner(Box::new(Client { socket, store: dir.to_owned(), holder }))),
                None => Err(owner::locked(dir, holder.as_ref())),
            },
        }
    }

    /// Lets go of the store.
    pub(crate) async fn close(self) -> CommandResult<()> {
        match self {
            Self::Store(store) => owner::close(store).await,
            Self::Owner(_) => Ok(()),
        }
    }

    /// The store's id.
    pub(crate) async fn store_id(&self) -> CommandResult<StoreId> {
        match self {
            Self::Store(store) => Ok(store.id()),
            Self::Owner(client) => Ok(client.owner().await?.info.store),
        }
    }

    /// A page of runs, newest first.
    pub(crate) async fn list(&self, query: ListQuery) -> CommandResult<ListPage> {
        match self {
            Self::Store(store) => Ok(store.list(query).await?),
            Self::Owner(client) => client.list(&query).await,
        }
    }

    /// One run.
    pub(crate) async fn view(&self, run: &RunId) -> CommandResult<RunView> {
        match self {
            Self::Store(store) => Ok(view::view(&engine::load(store.as_ref(), run).await?)),
            Self::Owner(client) => client.view(run).await,
        }
    }

    /// Its history after an event.
    pub(crate) async fn events(&self, run: &RunId, after: u64) -> CommandResult<Vec<Event>> {
        match self {
            Self::Store(store) => Ok(engine::history(store.as_ref(), run, after).await?),
            Self::Owner(client) => client.events(run, after).await,
        }
    }

    /// Its graph.
    pub(crate) async fn graph(&self, run: &RunId) -> CommandResult<Graph> {
        match self {
            Self::Store(store) => Ok(engine::load(store.as_ref(), run).await?.graph),
            Self::Owner(client) => client.graph(run).await,
        }
    }

    /// The runs that somebody drives now.
    pub(crate) async fn driven(&self) -> CommandResult<Vec<RunId>> {
        match self {
            Self::Store(_) => Ok(Vec::new()),
            Self::Owner(client) => Ok(client.owner().await?.live),
        }
    }

    /// Whether the run is being driven by somebody now.
    pub(crate) async fn is_driven(&self, run: &RunId) -> CommandResult<bool> {
        Ok(self.driven().await?.contains(run))
    }

    /// What keeps the run's steps from starting: locks, semaphores, rates and slots are known to who drives it only.
    pub(crate) async fn obstacles(&self, run: &RunId) -> CommandResult<Obstacles> {
        match self {
            Self::Store(_) => Ok(Obstacles::new()),
            Self::Owner(client) => client.obstacles(run).await,
        }
    }

    /// Whether there is a run of that very id.
    async fn is_there(&self, run: &RunId) -> CommandResult<bool> {
        match self {
            Self::Store(store) => Ok(store.head(run).await?.is_some()),
            Self::Owner(client) => match client.view(run).await {
                Ok(_) => Ok(true),
                Err(error) if error.code == Code::NoSuchRun => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// The run that `selector` names: an id, an unambiguous beginning of one, or `@latest`.
    pub(crate) async fn resolve(&self, selector: &str) -> CommandResult<RunId> {
        let page = |prefix: Option<&str>, limit| ListQuery {
            prefix: prefix.map(str::to_owned),
            limit,
            ..ListQuery::default()
        };
        if selector == "@latest" {
            let newest = self.list(page(None, 1)).await?.runs.into_iter().next();
            return newest.map(|r| r.run).ok_or_else(|| {
                CommandError::new(Code::NoSuchRun, "there is no run in this store")
                    .hint("`dssflow run bootstrap --sandbox` starts one that needs no account")
            });
        }
        // What is no beginning of an id names no run, and is never sent anywhere.
        if let Ok(whole) = RunId::new(selector) {
            let mut found = self.list(page(Some(selector), 10)).await?.runs;
            if let Some(exact) = found.iter().position(|r| r.run.as_str() == selector) {
                return Ok(found.swap_remove(exact).run);
            }
            // The newest that begin so may all be others.
            if found.len() > 1 && self.is_there(&whole).await? {
                return Ok(whole);
            }
            if found.len() > 1 {
                let names: Vec<String> = found.iter().map(|r| r.run.to_string()).collect();
                return Err(CommandError::new(
                    Code::AmbiguousRun,
                    format!("{selector} could be several runs"),
                )
                .why(names.join(", "))
                .hint("type more of the id"));
            }
            if let Some(only) = found.pop() {
                return Ok(only.run);
            }
            // The page is newest first and may not hold the run of exactly this id.
        }
        let known = self.list(page(None, SUGGEST_AMONG)).await?.runs;
        let error = CommandError::new(Code::NoSuchRun, format!("there is no run {selector}"));
        let names = || known.iter().map(|r| r.run.as_str());
        let near =
            suggest::nearest(selector, names()).or_else(|| suggest::nearest_beginning(selector, names()));
        Err(match near {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint("`dssflow runs ls` lists the runs of this store"),
        })
    }
}
