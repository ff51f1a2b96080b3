//! The deserializer that learns a type: it notes what is asked and answers with examples.
//!
//! A type whose code refuses an example ends the whole reading, so a type is read many times. Each reading goes first
//! to what is not known yet and around what is known to fail. Values of a type inside itself are made "by heart",
//! from what the outer one taught, as small as they can be.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use super::tree::{Id, Node, ROOT, Tree, Visit};

/// How deep a type is looked into.
const MAX_DEPTH: usize = 16;
/// How deep a value made by heart may be.
const MAX_DEPTH_BY_HEART: usize = 64;
/// How many steps all readings of a type may take.
const MAX_STEPS: usize = 200_000;
/// How many places of a tuple are told apart.
const MAX_PLACES: usize = 32;

/// Texts that are tried in turn where code checks them: a plain word, then forms that are often parsed.
const TEXTS: &[&str] = &[
    "a",
    "1",
    "127.0.0.1",
    "127.0.0.1:80",
    "10.0.0.0/8",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "00000000-0000-0000-0000-000000000000",
    "http://a.b/",
    "a@a.b",
    "1.0.0",
    "/a",
    "1s",
    "A",
    "",
];
/// Numbers that are tried in turn. They fit every width.
const NUMBERS: &[i8] = &[1, 0, 100];
/// How many examples there are where anything goes.
const ANYTHING: usize = 6;

/// An answer was refused. The words do not matter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// A type that is being read, from the outside in: its visitor's name, its own, and its slot.
type Entered = (&'static str, &'static str, Id);

/// What all deserializers of one type share.
#[derive(Debug, Default)]
pub(super) struct Explorer {
    tree: RefCell<Tree>,
    entered: RefCell<Vec<Entered>>,
    /// Of the visit under way; see [`Visit`].
    failed_below: Cell<bool>,
    avoided: Cell<bool>,
    steps: Cell<usize>,
}

impl Explorer {
    /// Reads the type once.
    pub(super) fn read<T: DeserializeOwned>(&self) {
        let at = At { explorer: self, id: ROOT, depth: 0, by_heart: false };
        // A refusal is noted in the tree.
        drop(at.visit(|| T::deserialize(at)));
    }

    /// Whether another reading would bring nothing.
    pub(super) fn is_done(&self) -> bool {
        self.steps.get() >= MAX_STEPS || self.tree.borrow().slot(ROOT).done
    }

    pub(super) fn into_tree(self) -> Tree {
        self.tree.into_inner()
    }

    fn step(&self) -> Result<(), Refused> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS { Err(Refused) } else { Ok(()) }
    }

    fn fails(&self, id: Id) -> bool {
        self.tree.borrow().slot(id).fails()
    }
}

/// Answers for one slot.
#[derive(Clone, Copy)]
struct At<'a> {
    explorer: &'a Explorer,
    id: Id,
    depth: usize,
    by_heart: bool,
}

impl<'a> At<'a> {
    fn below(self, id: Id) -> At<'a> {
        At { id, depth: self.depth + 1, ..self }
    }

    /// Lets the type's code read this slot, and notes how it went.
    fn visit<R>(self, read: impl FnOnce() -> Result<R, Refused>) -> Result<R, Refused> {
        let explorer = self.explorer;
        explorer.step()?;
        if self.by_heart {
            return read();
        }
        explorer.tree.borrow_mut().slot_mut(self.id).tries += 1;
        let outer = (explorer.failed_below.replace(false), explorer.avoided.replace(false));
        let result = read();
        let visit = Visit {
            ok: result.is_ok(),
            failed_below: explorer.failed_below.replace(outer.0 || result.is_err()),
            avoided: explorer.avoided.replace(outer.1),
        };
        // Out of steps, a refusal is our own and says nothing.
        explorer.step()?;
        let examples = examples(explorer.tree.borrow().slot(self.id).asked.last());
        explorer.tree.borrow_mut().settle(self.id, visit, examples);
        result
    }

    /// Notes what is asked for. By heart, it must be what was asked for before.
    fn note(
        self,
        fits: impl Fn(&Node) -> bool,
        make: impl FnOnce(&mut Tree) -> Node,
    ) -> Result<Node, Refused> {
        self.explorer.step()?;
        let mut tree = self.explorer.tree.borrow_mut();
        if self.by_heart {
            if self.depth > MAX_DEPTH_BY_HEART {
                return Err(Refused);
            }
            return tree.slot(self.id).asked.iter().find(|node| fits(node)).cloned().ok_or(Refused);
        }
        if self.depth > MAX_DEPTH {
            tree.note(self.id, |node| matches!(node, Node::Cut), |_| Node::Cut);
            return Err(Refused);
        }
        tree.note(self.id, fits, make).ok_or(Refused)
    }

    /// Notes a plain value, and gives the number of its example.
    fn leaf(self, word: &'static str) -> Result<usize, Refused> {
        self.note(|node| matches!(node, Node::Leaf(known) if *known == word), |_| Node::Leaf(word))?;
        Ok(self.explorer.tree.borrow().slot(self.id).example)
    }

    fn number(self, word: &'static str) -> Result<i8, Refused> {
        self.leaf(word).map(|example| NUMBERS[example.min(NUMBERS.len() - 1)])
    }

    fn text(self) -> Result<&'static str, Refused> {
        self.leaf("str").map(|example| TEXTS[example.min(TEXTS.len() - 1)])
    }

    fn avoid(self) {
        self.explorer.avoided.set(true);
    }

    /// Enters a type with a name. One that is entered already is made by heart.
    fn named<'de, V: Visitor<'de>>(
        self,
        name: &'static str,
        read: impl FnOnce(Self) -> Result<V::Value, Refused>,
    ) -> Result<V::Value, Refused> {
        let explorer = self.explorer;
        // Two types may have one name, and one generic type may stand inside itself; their visitors differ.
        let visitor = type_name::<V>();
        let back = |node: &Node| matches!(node, Node::Back(known, _) if *known == name);
        if self.by_heart {
            let target = {
                let tree = explorer.tree.borrow();
                let slot = tree.slot(self.id);
                match slot.asked.iter().find(|node| back(node)) {
                    Some(Node::Back(_, target)) if slot.gives => Some(*target),
                    Some(_) => return Err(Refused),
                    None => None,
                }
            };
            return read(target.map_or(self, |id| self.below(id)));
        }
        let around = explorer
            .entered
            .borrow()
            .iter()
            .find(|(v, n, id)| *v == visitor && *n == name && *id != self.id)
            .map(|&(_, _, id)| id);
        if let Some(target) = around {
            self.note(back, |_| Node::Back(name, target))?;
            return read(At { by_heart: true, ..self.below(target) });
        }
        explorer.entered.borrow_mut().push((visitor, name, self.id));
        let result = read(self);
        explorer.entered.borrow_mut().pop();
        result
    }

    /// A tuple, a tuple struct or the content of a tuple variant.
    fn tuple<'de, V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let node = self.note(
            |node| matches!(node, Node::Tuple(known, n, _) if *known == name && *n == len),
            |tree| Node::Tuple(name, len, (0..len.min(MAX_PLACES)).map(|_| tree.add()).collect()),
        )?;
        let Node::Tuple(_, _, items) = node else { return Err(Refused) };
        visitor.visit_seq(Items { at: self, items, len, next: 0 })
    }

    /// A struct or the content of a struct variant.
    fn fields<'de, V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let same = |known: &[(&str, Id)]| known.iter().map(|(field, _)| *field).eq(fields.iter().copied());
        let node = self.note(
            |node| matches!(node, Node::Struct(n, known) if *n == name && same(known)),
            |tree| Node::Struct(name, tree.add_named(fields)),
        )?;
        let Node::Struct(_, mut fields) = node else { return Err(Refused) };
        let all = fields.len();
        {
            let tree = self.explorer.tree.borrow();
            fields.retain(|(_, id)| !tree.slot(*id).fails());
            if !self.by_heart {
                // What is known comes last: a field that fails hides the later ones. The sort is stable.
                fields.sort_by_key(|(_, id)| match tree.slot(*id) {
                    slot if slot.done => u32::MAX,
                    slot => slot.tries,
                });
            }
        }
        if fields.len() < all {
            self.avoid();
        }
        visitor.visit_map(Fields { at: self, fields: fields.into_iter(), value: None })
    }
}

/// How many examples a plain value has.
fn examples(node: Option<&Node>) -> usize {
    match node {
        Some(Node::Leaf("str")) => TEXTS.len(),
        Some(Node::Leaf("any")) => ANYTHING,
        Some(Node::Leaf("bool")) => 2,
        Some(Node::Leaf(word)) if word.starts_with(['i', 'u', 'f']) && word.ends_with(char::is_numeric) => {
            NUMBERS.len()
        }
        _ => 1,
    }
}

macro_rules! numbers {
    ($($deserialize:ident $visit:ident $word:literal $from:expr;)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let number = self.number($word)?;
            visitor.$visit($from(number))
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Refused;

    numbers! {
        deserialize_i8 visit_i8 "i8" i8::from;
        deserialize_i16 visit_i16 "i16" i16::from;
        deserialize_i32 visit_i32 "i32" i32::from;
        deserialize_i64 visit_i64 "i64" i64::from;
        deserialize_i128 visit_i128 "i128" i128::from;
        deserialize_u8 visit_u8 "u8" i8::unsigned_abs;
        deserialize_u16 visit_u16 "u16" |n: i8| u16::from(n.unsigned_abs());
        deserialize_u32 visit_u32 "u32" |n: i8| u32::from(n.unsigned_abs());
        deserialize_u64 visit_u64 "u64" |n: i8| u64::from(n.unsigned_abs());
        deserialize_u128 visit_u128 "u128" |n: i8| u128::from(n.unsigned_abs());
        deserialize_f32 visit_f32 "f32" f32::from;
        deserialize_f64 visit_f64 "f64" f64::from;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.leaf("any")? {
            0 => visitor.visit_unit(),
            1 => visitor.visit_bool(true),
            2 => visitor.visit_u64(1),
            3 => visitor.visit_str("a"),
            4 => visitor.visit_seq(Items { at: self, items: Vec::new(), len: 0, next: 0 }),
            _ => visitor.visit_map(Fields { at: self, fields: Vec::new().into_iter(), value: None }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let example = self.leaf("bool")?;
        visitor.visit_bool(example == 0)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf("char")?;
        visitor.visit_char('a')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf("bytes")?;
        visitor.visit_bytes(b"a")
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf("bytes")?;
        visitor.visit_byte_buf(b"a".to_vec())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf("name")?;
        visitor.visit_str("")
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf("ignored")?;
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf("unit")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note(|node| matches!(node, Node::Unit(known) if *known == name), |_| Node::Unit(name))?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let node = self.note(|node| matches!(node, Node::Option(_)), |tree| Node::Option(tree.add()))?;
        let Node::Option(inner) = node else { return Err(Refused) };
        if self.by_heart || self.explorer.fails(inner) {
            return visitor.visit_none();
        }
        let inner = self.below(inner);
        inner.visit(|| visitor.visit_some(inner))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named::<V>(name, |at| {
            let node = at.note(
                |node| matches!(node, Node::Newtype(known, _) if *known == name),
                |tree| Node::Newtype(name, tree.add()),
            )?;
            let Node::Newtype(_, inner) = node else { return Err(Refused) };
            let inner = at.below(inner);
            inner.visit(|| visitor.visit_newtype_struct(inner))
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let node = self.note(|node| matches!(node, Node::Seq(_)), |tree| Node::Seq(tree.add()))?;
        let Node::Seq(inner) = node else { return Err(Refused) };
        if self.by_heart || self.explorer.fails(inner) {
            self.avoid();
            return visitor.visit_seq(Items { at: self, items: Vec::new(), len: 0, next: 0 });
        }
        visitor.visit_seq(Items { at: self, items: vec![inner], len: 1, next: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.tuple("", len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named::<V>(name, |at| at.tuple(name, len, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let node = self.note(
            |node| matches!(node, Node::Map(..)),
            |tree| {
                let key = tree.add();
                Node::Map(key, tree.add())
            },
        )?;
        let Node::Map(key, value) = node else { return Err(Refused) };
        let entry = if self.by_heart || self.explorer.fails(key) || self.explorer.fails(value) {
            self.avoid();
            None
        } else {
            Some((key, value))
        };
        visitor.visit_map(Entry { at: self, key: entry.map(|(key, _)| key), value })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named::<V>(name, |at| at.fields(name, fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.named::<V>(name, |at| {
            let same =
                |known: &[(&str, Id)]| known.iter().map(|(variant, _)| *variant).eq(variants.iter().copied());
            let node = at.note(
                |node| matches!(node, Node::Enum(n, known, _) if *n == name && same(known)),
                |tree| Node::Enum(name, tree.add_named(variants), None),
            )?;
            let Node::Enum(_, known, gives) = node else { return Err(Refused) };
            let open = {
                let tree = at.explorer.tree.borrow();
                let open = known.iter().enumerate().filter(|(_, (_, id))| !tree.slot(*id).done);
                open.min_by_key(|(_, (_, id))| tree.slot(*id).tries).map(|(i, _)| i)
            };
            let chosen = if at.by_heart { gives } else { open.or(gives) };
            let Some(chosen) = chosen else {
                at.avoid();
                return Err(Refused);
            };
            let (variant, content) = known[chosen];
            let value = visitor.visit_enum(Variant { at: at.below(content), name: variant })?;
            if !at.by_heart {
                at.explorer.tree.borrow_mut().variant_gives(at.id, chosen);
            }
            Ok(value)
        })
    }
}

/// The values of a list or tuple.
struct Items<'a> {
    at: At<'a>,
    items: Vec<Id>,
    len: usize,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.next >= self.len {
            return Ok(None);
        }
        // The places beyond the last slot share it.
        let Some(&item) = self.items.get(self.next.min(self.items.len().saturating_sub(1))) else {
            return Ok(None);
        };
        self.next += 1;
        if self.at.explorer.fails(item) {
            self.at.avoid();
            return Ok(None);
        }
        let item = self.at.below(item);
        item.visit(|| seed.deserialize(item)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len().saturating_sub(self.next))
    }
}

/// The fields of a struct.
struct Fields<'a> {
    at: At<'a>,
    fields: std::vec::IntoIter<(&'static str, Id)>,
    value: Option<Id>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some((field, id)) = self.fields.next() else { return Ok(None) };
        self.value = Some(id);
        let name: StrDeserializer<'_, Refused> = field.into_deserializer();
        let key = seed.deserialize(name);
        if key.is_err() && !self.at.by_heart {
            self.at.explorer.tree.borrow_mut().close(id);
        }
        key.map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let value = self.at.below(self.value.take().ok_or(Refused)?);
        value.visit(|| seed.deserialize(value))
    }
}

/// The one entry of a map, or none.
struct Entry<'a> {
    at: At<'a>,
    key: Option<Id>,
    value: Id,
}

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some(key) = self.key.take() else { return Ok(None) };
        let key = self.at.below(key);
        key.visit(|| seed.deserialize(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let value = self.at.below(self.value);
        value.visit(|| seed.deserialize(value))
    }
}

/// One variant of an enum; the slot is its content's.
struct Variant<'a> {
    at: At<'a>,
    name: &'static str,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = Refused;
    type Variant = At<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, At<'a>), Refused> {
        let name: StrDeserializer<'_, Refused> = self.name.into_deserializer();
        let variant = seed.deserialize(name);
        if variant.is_err() && !self.at.by_heart {
            self.at.explorer.tree.borrow_mut().close(self.at.id);
        }
        Ok((variant?, self.at))
    }
}

impl<'de> VariantAccess<'de> for At<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.visit(|| self.leaf("").map(drop))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        self.visit(|| {
            let node =
                self.note(|node| matches!(node, Node::Newtype("", _)), |tree| Node::Newtype("", tree.add()))?;
            let Node::Newtype(_, inner) = node else { return Err(Refused) };
            let inner = self.below(inner);
            inner.visit(|| seed.deserialize(inner))
        })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.visit(|| self.tuple("", len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.visit(|| self.fields("", fields, visitor))
    }
}
