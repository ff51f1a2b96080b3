//! New runs: what an order would do is checked and told, then it is done. Account and principal are checked against the
//! site that the client resolved before anything is accepted.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use dssflow_activities::aws::identity::Identity;
use dssflow_engine::event::Request;
use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::run::view::RunView;
use dssflow_engine::{EngineError, StartRun};
use dssflow_workflows::{Site, Workflow};
use futures::future::BoxFuture;
use rand::RngExt as _;

use super::{Opened, Service};
use crate::access::Access;
use crate::catalog::{self, MadeOf};
use crate::commands::preflight::verdict;
use crate::commands::{image, plan, resync, run, teardown};
use crate::control::{Checked, Driven, Order};
use crate::drive;
use crate::error::{Code, CommandError, CommandResult};
use crate::launch;
use crate::plans::{Actor, Revision, SavedPlan};
use crate::spec::{About, Spec};
use crate::takeovers;
use crate::ui::one_line;
use crate::world::{self, World};

/// How long what was looked at for an order holds.
const HOLDS: Duration = Duration::from_mins(15);
/// The most orders that are remembered.
const MAX_TICKETS: usize = 1000;

/// Orders that were checked, by their tickets.
pub(super) type Tickets = BTreeMap<String, (Instant, Order)>;

/// What an order comes to.
struct Prepared {
    spec: Spec,
    world: World,
    notes: Vec<String>,
    question: &'static str,
    free: bool,
    what: What,
}

/// What is to be done.
enum What {
    /// A new run.
    Start(Box<StartRun>),
    /// An earlier one is gone on with.
    GoOn(Box<RunView>),
    /// Nothing, with what a person is told.
    Nothing,
}

impl Service {
    /// Says what an order would do. Changes nothing.
    ///
    /// # Errors
    /// Everything that stands against it.
    pub(crate) async fn check(&self, order: &Order) -> CommandResult<Checked> {
        self.must_go_on()?;
        let Prepared { notes, question, free, what, .. } = self.prepare(order, true).await?;
        let (run, goes_on) = match what {
            What::Start(start) => (start.id, false),
            What::GoOn(earlier) => (Some(earlier.run), true),
            What::Nothing => (None, false),
        };
        let free = free || goes_on || run.is_none();
        let ticket = self.remember(order);
        Ok(Checked { run, goes_on, notes, question: question.to_owned(), free, ticket })
    }

    /// Carries an order out. Nothing comes back when there is nothing to do.
    ///
    /// # Errors
    /// Everything that stands against it; then nothing has started.
    pub(crate) async fn order(self: &Arc<Self>, order: &Order) -> CommandResult<Option<Driven>> {
        self.must_go_on()?;
        let looked = self.recognises(order);
        if !looked {
            // Looking takes long; others need not wait for it.
            self.prepare(order, true).await?;
        }
        let _one_at_a_time = self.starting.lock().await;
        self.must_go_on()?;
        let Prepared { spec, world, what, .. } = self.prepare(order, false).await?;
        let engine = drive::equip(&self.engine, &world);
        let opened = Opened { spec, world, engine };
        match what {
            What::Nothing => Ok(None),
            What::Start(start) => {
                if let Some(id) = &start.id {
                    opened.world.hold(id).await;
                }
                let handle = opened.engine.start(*start).await?;
                let run = handle.id().clone();
                self.keep(opened, handle);
                Ok(Some(Driven { run, seq: 0, already: false }))
            }
            What::GoOn(earlier) => {
                let (run, seq) = (earlier.run.clone(), earlier.seq);
                if self.engine.handle(&run).is_some() {
                    return Ok(Some(Driven { run, seq, already: true }));
                }
                let request = Request { by: order.by.clone(), reason: order.reason.clone() };
                let driven = if earlier.status == RunStatus::RollbackStuck {
                    opened.engine.rollback(&run, Vec::new(), request).await
                } else {
                    opened.engine.resume(&run, request).await
                };
                match driven {
                    Ok(handle) => self.keep(opened, handle),
                    Err(EngineError::Live(_)) => return Ok(Some(Driven { run, seq, already: true })),
                    Err(error) => return Err(error.into()),
                }
                Ok(Some(Driven { run, seq, already: false }))
            }
        }
    }

    fn remember(&self, order: &Order) -> String {
        let ticket: String = rand::rng().random::<[u8; 16]>().iter().fold(String::new(), |mut text, byte| {
            put!(text, "{byte:02x}");
            text
        });
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, (at, _)| at.elapsed() < HOLDS);
        if tickets.len() >= MAX_TICKETS
            && let Some(oldest) =
                tickets.iter().min_by_key(|(_, (at, _))| *at).map(|(ticket, _)| ticket.clone())
        {
            tickets.remove(&oldest);
        }
        tickets.insert(ticket.clone(), (Instant::now(), Order { ticket: None, ..order.clone() }));
        ticket
    }

    /// Whether this very order was checked a moment ago.
    fn recognises(&self, order: &Order) -> bool {
        let Some(ticket) = &order.ticket else { return false };
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.get(ticket).is_some_and(|(at, checked)| {
            at.elapsed() < HOLDS && *checked == Order { ticket: None, ..order.clone() }
        })
    }

    /// `look` is whether the world is looked at: that takes long.
    fn prepare<'a>(&'a self, order: &'a Order, look: bool) -> BoxFuture<'a, CommandResult<Prepared>> {
        Box::pin(async move {
            match catalog::find(&order.workflow)?.made_of {
                MadeOf::SiteAndRuns => self.prepare_teardown(order).await,
                MadeOf::Site | MadeOf::Images | MadeOf::Resync => self.prepare_run(order, look).await,
            }
        })
    }

    async fn prepare_run(&self, order: &Order, look: bool) -> CommandResult<Prepared> {
        let launch::Prepared { workflow, spec } = launch::prepare(&order.workflow, &order.spec)?;
        let about = About::from(&spec);
        if let About::Images(images) = about {
            image::must_be_absolute(images)?;
        }
        let sandbox = run::sandbox_behind(&self.settings, about).await?;
        let world = world::connect_about(&self.pool, about, sandbox).await?;
        let label = world.sandbox.as_ref().map(|s| s.id.clone());
        if let Some(down) = takeovers::tidy(&self.store, about.name(), label.as_deref()).await? {
            return Err(takeovers::in_the_way(about.name(), &down, &self.settings.command()));
        }
        let identity = match about.account() {
            Some(_) => Some(world.identify(about).await?),
            None => None,
        };
        if let Some(identity) = &identity {
            must_be(order, identity)?;
        }
        if let Some(plan) = &order.plan {
            let plan: SavedPlan = serde_json::from_value(plan.clone()).map_err(|e| {
                CommandError::new(Code::BadPlan, "what was sent cannot be used as a plan").why(e)
            })?;
            let (About::Site(_), Some(identity)) = (about, &identity) else {
                return Err(CommandError::new(
                    Code::Usage,
                    format!("there are no plans of workflow {}", order.workflow),
                ));
            };
            let access = Access::Store(Arc::clone(&self.store));
            let revision = Revision::of(&access, about.name()).await?;
            plan.must_fit(&workflow, &revision, &Actor::new(identity, label.clone()))?;
            if look {
                plan.must_hold(&plan::look(&world, &workflow, &revision).await?)?;
            }
        }
        let earlier = run::unfinished(&self.engine, &workflow, label.as_deref(), order.id.as_ref()).await?;
        if let Some(earlier) = earlier {
            run::must_fit(&self.engine, &workflow, &earlier, &self.settings).await?;
            if let Some(identity) = &identity {
                World::same_principal(&earlier, identity)?;
            }
            world.find_host(&earlier)?;
            return Ok(go_on(spec, world, earlier));
        }
        let notes = if look {
            let principal = identity.as_ref().map(|identity| identity.principal_arn.as_str());
            self.look(about, &world, &workflow, principal).await?
        } else {
            Vec::new()
        };
        let question = match about {
            About::Site(_) => "Make this?",
            About::Images(_) => "Build and push this?",
            About::Resync(_) => "Change tables in Glue?",
        };
        let reads = matches!(about, About::Resync(spec) if spec.glue_resync.dry_run);
        let free = world.sandbox.is_some() || reads;
        let what = What::Start(Box::new(self.start_of(order, workflow, label).await?));
        Ok(Prepared { spec, world, notes, question, free, what })
    }

    /// Looks whether the world fits, and gives what a person has to know before.
    async fn look(
        &self,
        about: About<'_>,
        world: &World,
        workflow: &Workflow,
        principal: Option<&str>,
    ) -> CommandResult<Vec<String>> {
        let (settings, sandbox) = (&self.settings, world.sandbox.as_ref());
        let known = principal.unwrap_or_default();
        let (report, banner) = match about {
            About::Site(site) => {
                let store = Some(self.engine.store().id().to_string());
                let report = world.preflight(site, &workflow.graph, store).await;
                let banner = run::banner(site, known, report.account_alias.as_deref(), sandbox, settings);
                (Some(report), banner)
            }
            About::Resync(spec) => {
                let report = world.preflight_resync(spec).await;
                let banner = resync::banner(spec, known, report.account_alias.as_deref(), sandbox, settings);
                (Some(report), banner)
            }
            About::Images(images) => {
                image::look(images).await?;
                (None, image::banner(images, principal, settings))
            }
        };
        let mut notes = Vec::new();
        if let Some(judged) = report.as_ref().map(verdict) {
            if let Some(error) = judged.error {
                return Err(error);
            }
            notes.extend(judged.warnings);
        }
        notes.push(banner.join("\n"));
        Ok(notes)
    }

    async fn prepare_teardown(&self, order: &Order) -> CommandResult<Prepared> {
        let (site, world) = self.connect(order).await?;
        let label = world.sandbox.as_ref().map(|s| s.id.clone());
        if let Some(down) = takeovers::tidy(&self.store, &site.name, label.as_deref()).await? {
            let identity = world.identify(&site).await?;
            must_be(order, &identity)?;
            World::same_principal(&down, &identity)?;
            world.find_host(&down)?;
            return Ok(go_on(Spec::Site(Box::new(site)), world, down));
        }
        let runs = teardown::runs_of(&self.engine, &site.name, label.as_deref()).await?;
        let made = teardown::made_of(&site, &runs)?;
        let Some(made) = made else {
            let notes = vec![teardown::nothing(&site.name)];
            let spec = Spec::Site(Box::new(site));
            return Ok(Prepared { spec, world, notes, question: "", free: true, what: What::Nothing });
        };
        let identity = world.identify(&site).await?;
        must_be(order, &identity)?;
        for run in &runs {
            World::same_principal(&dssflow_engine::run::view::view(run), &identity)?;
        }
        let notes = vec![teardown::what_goes(&made, &runs, &identity.principal_arn, &self.settings)];
        let free = world.sandbox.is_some();
        let start = self.start_of(order, made.workflow, label).await?;
        let spec = Spec::Site(Box::new(site));
        Ok(Prepared {
            spec,
            world,
            notes,
            question: "Delete this?",
            free,
            what: What::Start(Box::new(start)),
        })
    }

    /// The site of an order, checked as a file is, and its world.
    async fn connect(&self, order: &Order) -> CommandResult<(Site, World)> {
        let site = dssflow_workflows::parse(&order.spec.to_string(), "the site that was sent")?;
        let sandbox = run::sandbox_behind(&self.settings, &site).await?;
        let world = world::connect_about(&self.pool, About::from(&site), sandbox).await?;
        Ok((site, world))
    }

    async fn start_of(
        &self,
        order: &Order,
        workflow: Workflow,
        sandbox: Option<String>,
    ) -> CommandResult<StartRun> {
        let id: RunId = match &order.id {
            Some(id) => id.clone(),
            None => run::free_id(&self.engine, &workflow).await?,
        };
        let request = Request { by: order.by.clone(), reason: order.reason.clone() };
        Ok(launch::start_of(workflow, Some(id), sandbox.as_deref(), request))
    }
}

fn go_on(spec: Spec, world: World, earlier: RunView) -> Prepared {
    let notes = vec![run::going_on(&earlier)];
    Prepared { spec, world, notes, question: "", free: true, what: What::GoOn(Box::new(earlier)) }
}

/// Refuses an order of somebody who is another user or role than this process.
fn must_be(order: &Order, identity: &Identity) -> CommandResult<()> {
    let Some(wanted) = &order.principal else { return Ok(()) };
    if (&wanted.account, &wanted.arn) == (&identity.account, &identity.principal_arn) {
        return Ok(());
    }
    Err(CommandError::new(
        Code::WrongAccount,
        format!(
            "the process that serves the store is {} of account {}, you are {} of account {}",
            one_line(&identity.principal_arn),
            identity.account,
            one_line(&wanted.arn),
            one_line(&wanted.account)
        ),
    )
    .why("nothing was created: a run acts as the process that drives it")
    .hint("let it act as that one: add --as-served")
    .hint("or start `dssflow serve` with your credentials"))
}
