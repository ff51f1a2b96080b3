//! What only some kinds of steps know: undo, limits of maps, what becomes of sub-workflows, ends of waits.

#![expect(
    clippy::return_self_not_must_use,
    reason = "they change the step they are called on; the handle is an extra"
)]

use std::any::TypeId;
use std::time::Duration;

use serde::Serialize;

use super::WorkflowError;
use super::function::{Data, UndoFn};
use super::parts::{Shared, millis};
use super::step::{Call, Coded, Each, Gate, Signal, Step, Sub};
use crate::graph::{OnParentClose, OnReject, StepKind};

/// Registers a function with what takes back what it did.
fn set_undo<I, O, U, M>(parts: &Shared, coded: Option<&Coded<I, O>>, undo: U)
where
    I: Data,
    O: Data,
    U: UndoFn<I, O, M>,
    U::Future: Send,
{
    let Some(Coded { name, type_id, function }) = coded.cloned() else { return };
    parts.note_values::<U>();
    let types = [type_id, TypeId::of::<U>()];
    parts.set_code(
        &name,
        &types,
        Box::new(move |activities, name| {
            let run = move |ctx, input| function(ctx, input);
            activities.add_fn_with_undo(name, run, move |ctx, was| undo.call(ctx, was))
        }),
    );
}

impl<T, I: Data, O: Data> Step<T, Call<I, O>> {
    /// What takes back what it did. It runs at a rollback for every step that ever started, also when no attempt
    /// answered; it is repeated like any attempt, and "not there" is success.
    pub fn undo<U, M>(self, undo: U) -> Self
    where
        U: UndoFn<I, O, M>,
        U::Future: Send,
    {
        set_undo(self.parts(), self.kind.0.as_ref(), undo);
        self
    }
}

impl<T, I: Data, O: Data> Step<T, Each<O, Call<I, O>>> {
    /// What takes back what it did for one item; see the `undo` of a single step.
    pub fn undo<U, M>(self, undo: U) -> Self
    where
        U: UndoFn<I, O, M>,
        U::Future: Send,
    {
        set_undo(self.parts(), self.kind.one.0.as_ref(), undo);
        self
    }
}

impl<T, O, C> Step<T, Each<O, C>> {
    /// So many at once; 0 means all. Default: all.
    pub fn max_concurrency(self, limit: u32) -> Self {
        self.change(|step| {
            if let StepKind::Map { max_concurrency, .. } = &mut step.kind {
                *max_concurrency = limit;
            }
        })
    }

    /// So many may fail for good. What they would have given is `None`.
    pub fn tolerate(self, failures: u32) -> Step<Vec<Option<O>>, Each<O, C>> {
        let step = self.change(|step| {
            if let StepKind::Map { tolerated_failures, .. } = &mut step.kind {
                *tolerated_failures = failures;
            }
        });
        step.retyped()
    }
}

impl<T> Step<T, Sub> {
    /// What becomes of its run when the run above stops first. Default: it is cancelled.
    pub fn on_parent_close(self, what: OnParentClose) -> Self {
        self.change(|step| {
            if let StepKind::SubWorkflow { on_parent_close, .. } = &mut step.kind {
                *on_parent_close = what;
            }
        })
    }
}

fn set_limit(step: &mut crate::graph::Step, limit: Duration) {
    if let StepKind::Gate { timeout_ms, .. } | StepKind::Signal { timeout_ms, .. } = &mut step.kind {
        *timeout_ms = Some(millis(limit));
    }
}

impl<T> Step<T, Gate> {
    /// How long it waits, in wall time. Then it fails, unless [`default_to`](Self::default_to) says otherwise.
    pub fn within(self, limit: Duration) -> Self {
        self.change(|step| set_limit(step, limit))
    }

    /// What counts as decided when the time is over.
    pub fn default_to(self, approved: bool) -> Self {
        self.change(|step| {
            if let StepKind::Gate { default, .. } = &mut step.kind {
                *default = Some(approved);
            }
        })
    }

    /// The run goes on when it is rejected: later steps go by [`Approval::approved`](super::Approval::approved).
    /// Otherwise the step fails then.
    pub fn continue_on_reject(self) -> Self {
        self.change(|step| {
            if let StepKind::Gate { on_reject, .. } = &mut step.kind {
                *on_reject = OnReject::Continue;
            }
        })
    }
}

impl<T: Serialize> Step<T, Signal> {
    /// How long it waits, in wall time. Then it fails, unless [`default_to`](Self::default_to) says otherwise.
    pub fn within(self, limit: Duration) -> Self {
        self.change(|step| set_limit(step, limit))
    }

    /// What is taken as the signal's payload when the time is over.
    pub fn default_to(self, payload: T) -> Self {
        match serde_json::to_value(&payload) {
            Ok(payload) => self.change(|step| {
                if let StepKind::Signal { default, .. } = &mut step.kind {
                    *default = Some(payload);
                }
            }),
            Err(e) => {
                let workflow = self.parts().workflow().clone();
                self.parts().wrong(WorkflowError::BadValue { workflow, why: e.to_string() });
                self
            }
        }
    }
}
