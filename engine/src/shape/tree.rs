//! What is known of a type so far: slots, one for each place in it where a value stands, and how to print them.

use std::fmt::Write;

/// The place of a slot in its tree.
pub(super) type Id = usize;

/// The slot of the type itself.
pub(super) const ROOT: Id = 0;

/// How often a slot may be visited without anything new anywhere before it counts as done.
const MAX_IDLE: u32 = 4;
/// How many forms one slot may take; code that asks for more is not followed.
const MAX_FORMS: usize = 64;

/// What a type asked for in one place.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A plain value, with the word it is printed as.
    Leaf(&'static str),
    /// A struct without fields.
    Unit(&'static str),
    Option(Id),
    Seq(Id),
    Map(Id, Id),
    Newtype(&'static str, Id),
    /// A tuple, or with a name a tuple struct. Of a very long one only the first places have slots.
    Tuple(&'static str, usize, Vec<Id>),
    Struct(&'static str, Vec<(&'static str, Id)>),
    /// An enum, and the variant of which a value could be made first.
    Enum(&'static str, Vec<(&'static str, Id)>, Option<usize>),
    /// The type of a slot around this one.
    Back(&'static str, Id),
    /// Nested too deep to look into.
    Cut,
}

/// One place in a type.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// What was asked for here; several forms where the code looks at other values first.
    pub(super) asked: Vec<Node>,
    /// Nothing more can be learned here.
    pub(super) done: bool,
    /// A value could be made.
    pub(super) gives: bool,
    /// How often it was visited.
    pub(super) tries: u32,
    /// Which example a plain value gets.
    pub(super) example: usize,
    /// How it came to an end, if not by itself.
    end: End,
    /// The count of changes after the last visit, and how many visits went by without one.
    seen: Option<usize>,
    idle: u32,
}

impl Slot {
    /// Whether it is known that no value can be made.
    pub(super) fn fails(&self) -> bool {
        self.done && !self.gives
    }
}

/// What else there is to say of a slot that is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    None,
    /// No example would do, and nothing below is to blame.
    Refused,
    /// Given up, though something may be open below: nothing comes of further visits.
    GivenUp,
}

/// How a visit to a slot went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Visit {
    /// A value was made.
    pub(super) ok: bool,
    /// A slot below failed; the next visit goes around it.
    pub(super) failed_below: bool,
    /// Something below was left out because it is known to fail.
    pub(super) avoided: bool,
}

/// In which order fields and variants are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    AsDeclared,
    ByName,
}

/// All slots of a type.
#[derive(Debug)]
pub(super) struct Tree {
    slots: Vec<Slot>,
    /// Counts what was learned.
    changes: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self { slots: vec![Slot::default()], changes: 0 }
    }
}

impl Tree {
    pub(super) fn slot(&self, id: Id) -> &Slot {
        &self.slots[id]
    }

    pub(super) fn slot_mut(&mut self, id: Id) -> &mut Slot {
        &mut self.slots[id]
    }

    /// A new slot, of which nothing is known.
    pub(super) fn add(&mut self) -> Id {
        self.slots.push(Slot::default());
        self.slots.len() - 1
    }

    /// A new slot for each name.
    pub(super) fn add_named(&mut self, names: &'static [&'static str]) -> Vec<(&'static str, Id)> {
        names.iter().map(|&name| (name, self.add())).collect()
    }

    /// The form of the slot that fits, made when there is none. `None` when there are too many.
    pub(super) fn note(
        &mut self,
        id: Id,
        fits: impl Fn(&Node) -> bool,
        make: impl FnOnce(&mut Self) -> Node,
    ) -> Option<Node> {
        if let Some(known) = self.slots[id].asked.iter().find(|node| fits(node)) {
            return Some(known.clone());
        }
        if self.slots[id].asked.len() >= MAX_FORMS {
            return None;
        }
        let node = make(self);
        self.changes += 1;
        self.slots[id].asked.push(node.clone());
        self.slots[id].done = self.slots[id].end == End::GivenUp;
        Some(node)
    }

    /// Remembers that a value of the slot's enum could be made from this variant.
    pub(super) fn variant_gives(&mut self, id: Id, variant: usize) {
        for node in &mut self.slots[id].asked {
            if let Node::Enum(_, _, first @ None) = node {
                *first = Some(variant);
                self.changes += 1;
            }
        }
    }

    /// Draws the conclusions from a visit. `examples` is how many a plain value of this slot has.
    pub(super) fn settle(&mut self, id: Id, visit: Visit, examples: usize) {
        let open = self.open_below(id);
        if self.slots[id].end == End::GivenUp || self.slots[id].done && !open {
            return;
        }
        let slot = &mut self.slots[id];
        let (waits, cut) = match slot.asked.last() {
            Some(Node::Back(..)) => (true, false),
            Some(Node::Cut) => (false, true),
            _ => (false, false),
        };
        let before = (slot.gives, slot.done, slot.example);
        if visit.ok {
            slot.gives = true;
            slot.done = !open;
        } else if visit.failed_below || waits {
            // The next visit goes around what failed, or finds that the type around it can be made.
        } else if slot.example + 1 < examples {
            slot.example += 1;
        } else {
            slot.done = !open;
            if slot.done && !slot.gives && !visit.avoided && !cut {
                slot.end = End::Refused;
            }
        }
        if before != (slot.gives, slot.done, slot.example) {
            self.changes += 1;
        }
        if slot.seen.replace(self.changes) == Some(self.changes) {
            slot.idle += 1;
            if slot.idle >= MAX_IDLE {
                slot.done = true;
                slot.end = End::GivenUp;
                self.changes += 1;
            }
        } else {
            slot.idle = 0;
        }
    }

    /// Closes a slot that the type's code never looks at.
    pub(super) fn close(&mut self, id: Id) {
        let slot = &mut self.slots[id];
        if slot.end != End::GivenUp {
            (slot.done, slot.end) = (true, End::GivenUp);
            self.changes += 1;
        }
    }

    /// Whether there is more to learn below a slot, as far as it can be reached.
    fn open_below(&self, id: Id) -> bool {
        let open = |id: Id| !self.slots[id].done;
        self.slots[id].asked.iter().any(|node| match node {
            Node::Leaf(_) | Node::Unit(_) | Node::Back(..) | Node::Cut => false,
            Node::Option(inner) | Node::Seq(inner) | Node::Newtype(_, inner) => open(*inner),
            Node::Map(key, value) => self.open_in_turn(&[*key, *value]),
            Node::Tuple(_, _, items) => self.open_in_turn(items),
            Node::Struct(_, parts) | Node::Enum(_, parts, _) => parts.iter().any(|(_, part)| open(*part)),
        })
    }

    /// The same for values that stand one after the other: one that fails hides the later ones.
    fn open_in_turn(&self, ids: &[Id]) -> bool {
        let reached = ids.iter().position(|&id| self.slots[id].fails()).unwrap_or(ids.len());
        ids[..reached].iter().any(|&id| !self.slots[id].done)
    }

    /// The whole shape as text.
    pub(super) fn text(&self, order: Order) -> String {
        let mut out = String::new();
        self.print(ROOT, order, &mut out);
        out
    }

    fn print(&self, id: Id, order: Order, out: &mut String) {
        let slot = &self.slots[id];
        if slot.asked.is_empty() {
            out.push('_');
        }
        for (i, node) in slot.asked.iter().enumerate() {
            if i > 0 {
                out.push('|');
            }
            self.print_node(node, order, out);
        }
        if slot.end == End::Refused && !slot.gives {
            out.push('?');
        }
    }

    fn print_node(&self, node: &Node, order: Order, out: &mut String) {
        match node {
            Node::Leaf(word) => out.push_str(word),
            Node::Unit(name) => print_name(name, out),
            Node::Option(inner) => {
                out.push_str("Option<");
                self.print(*inner, order, out);
                out.push('>');
            }
            Node::Seq(inner) => {
                out.push('[');
                self.print(*inner, order, out);
                out.push(']');
            }
            // Only code that sorts fields out by itself asks a map for identifiers: a struct with a flattened field.
            Node::Map(key, _) if self.slots[*key].asked.iter().any(|n| matches!(n, Node::Leaf("name"))) => {
                out.push_str("any");
            }
            Node::Map(key, value) => {
                out.push('{');
                self.print(*key, order, out);
                out.push_str("=>");
                self.print(*value, order, out);
                out.push('}');
            }
            Node::Newtype(name, inner) => {
                print_name(name, out);
                out.push('(');
                self.print(*inner, order, out);
                out.push(')');
            }
            Node::Tuple(name, len, items) => {
                print_name(name, out);
                out.push('(');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    self.print(*item, order, out);
                }
                if *len > items.len() {
                    write!(out, ";{len}").expect("writing to a string");
                }
                out.push(')');
            }
            Node::Struct(name, fields) => {
                print_name(name, out);
                out.push('{');
                for (i, (field, id)) in ordered(fields, order).into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    print_name(field, out);
                    out.push(':');
                    self.print(id, order, out);
                }
                out.push('}');
            }
            Node::Enum(name, variants, _) => {
                print_name(name, out);
                out.push('<');
                for (i, (variant, id)) in ordered(variants, order).into_iter().enumerate() {
                    if i > 0 {
                        out.push('|');
                    }
                    print_name(variant, out);
                    self.print(id, order, out);
                }
                out.push('>');
            }
            Node::Back(name, _) => {
                out.push('^');
                print_name(name, out);
            }
            Node::Cut => out.push_str(".."),
        }
    }
}

fn ordered(parts: &[(&'static str, Id)], order: Order) -> Vec<(&'static str, Id)> {
    let mut parts = parts.to_vec();
    if order == Order::ByName {
        parts.sort_unstable();
    }
    parts
}

/// A name may be anything by `serde(rename)`; what could be taken for our own signs is quoted.
fn print_name(name: &str, out: &mut String) {
    if name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) {
        out.push_str(name);
    } else {
        write!(out, "{name:?}").expect("writing to a string");
    }
}
