//! Types and their shapes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;

use super::*;
use crate::id::StepName;

#[track_caller]
fn check<T: DeserializeOwned>(text: &str) {
    let shape = shape_of::<T>();
    assert_eq!(shape.text(), text);
    assert_eq!(shape, shape_of::<T>(), "the same every time");
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only its shape is of interest")]
struct Item {
    sku: String,
    n: u32,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only its shape is of interest")]
struct Order {
    id: String,
    items: Vec<Item>,
}

#[test]
fn plain_values() {
    check::<()>("unit");
    check::<bool>("bool");
    check::<(u8, u16, u32, u64, u128)>("(u8,u16,u32,u64,u128)");
    check::<(i8, i16, i32, i64, i128)>("(i8,i16,i32,i64,i128)");
    check::<(f32, f64, char, String)>("(f32,f64,char,str)");
    check::<std::ffi::CString>("bytes");
    check::<Option<Vec<Option<String>>>>("Option<[Option<str>]>");
    check::<BTreeMap<String, BTreeMap<u32, BTreeSet<i8>>>>("{str=>{u32=>[i8]}}");
    check::<[u8; 3]>("(u8,u8,u8)");
    check::<Value>("any");
    check::<serde_json::Number>("any");
    check::<Duration>("Duration{secs:u64,nanos:u32}");
    check::<Result<u8, String>>("Result<Ok(u8)|Err(str)>");
}

#[test]
fn structs_nest() {
    check::<Order>("Order{id:str,items:[Item{sku:str,n:u32}]}");
    check::<Box<(Order, Order)>>(
        "(Order{id:str,items:[Item{sku:str,n:u32}]},Order{id:str,items:[Item{sku:str,n:u32}]})",
    );
}

#[test]
fn types_of_ours() {
    use crate::activity::{Marks, Recorded};
    check::<Marks>("Marks{store:str,site:str,run:str,step:str,generation:u32}");
    check::<Recorded>(
        "Recorded{output:Option<any>,resources:[Resource{kind:str,id:str,generation:u32}],before:{str=>any}}",
    );
    check::<crate::event::CancelMode>("CancelMode<keep|rollback|terminate>");
}

#[test]
fn structs_of_all_kinds() {
    #[derive(Deserialize)]
    struct Nothing;
    #[derive(Deserialize)]
    struct Empty {}
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Metres(f64);
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Point(i32, Metres);
    #[derive(Deserialize)]
    #[serde(transparent)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Thin(Metres);
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Named {
        first_name: String,
        #[serde(rename = "a:b")]
        odd: u8,
        #[serde(default)]
        may_miss: Option<u8>,
        #[serde(skip)]
        left_out: u64,
    }
    check::<Nothing>("Nothing");
    check::<Empty>("Empty{}");
    check::<Metres>("Metres(f64)");
    check::<Point>("Point(i32,Metres(f64))");
    check::<Thin>("Metres(f64)");
    check::<Named>("Named{first-name:str,\"a:b\":u8,may-miss:Option<u8>}");
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only its shape is of interest")]
enum Kind {
    One,
    Two(u8),
    Three(u8, String),
    Four {
        a: Item,
        b: bool,
    },
    #[serde(rename = "5")]
    Five(Order),
}

const KIND: &str = "Kind<One|Two(u8)|Three(u8,str)|Four{a:Item{sku:str,n:u32},b:bool}\
                    |5(Order{id:str,items:[Item{sku:str,n:u32}]})>";

#[test]
fn enums_show_every_variant() {
    check::<Kind>(KIND);
    check::<Vec<Kind>>(&format!("[{KIND}]"));
    check::<(Kind, Kind)>(&format!("({KIND},{KIND})"));
    check::<BTreeMap<String, Option<Kind>>>(&format!("{{str=>Option<{KIND}>}}"));
}

#[test]
fn enums_with_tags() {
    #[derive(Deserialize)]
    #[serde(tag = "kind")]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Inside {
        A { x: u8 },
        B,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Untagged {
        A(u8),
        B(String),
    }
    #[derive(Deserialize)]
    #[serde(tag = "t", content = "c")]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Beside {
        A(u8),
        B { x: String },
        C(Order),
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Around {
        first: Inside,
        second: Untagged,
        third: Option<Inside>,
        last: u8,
    }
    check::<Inside>("any?");
    check::<Untagged>("any");
    check::<Around>("Around{first:any?,second:any,third:Option<any?>,last:u8}");
    // Serde reads the fields of B as whatever comes.
    check::<Beside>("Beside{t:Beside<A|B|C>,c:u8|any|Order{id:str,items:[Item{sku:str,n:u32}]}}");
}

#[test]
fn recursion_ends() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct List {
        next: Option<Box<List>>,
        value: u8,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Tree {
        children: Vec<Tree>,
        by_name: BTreeMap<String, Tree>,
        checked: StepName,
        kind: Kind,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum Expr {
        Add(Box<Expr>, Box<Expr>, u8),
        Not { inner: Box<Expr>, note: String },
        Literal(i64),
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Endless {
        again: Box<Endless>,
        other: u8,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Even {
        odd: Option<Box<Odd>>,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Odd {
        even: Even,
        n: u8,
    }
    check::<List>("List{next:Option<^List>,value:u8}");
    check::<Tree>(&format!("Tree{{children:[^Tree],by_name:{{str=>^Tree}},checked:str,kind:{KIND}}}"));
    check::<Expr>("Expr<Add(^Expr,^Expr,u8)|Not{inner:^Expr,note:str}|Literal(i64)>");
    check::<(Expr, u8)>("(Expr<Add(^Expr,^Expr,u8)|Not{inner:^Expr,note:str}|Literal(i64)>,u8)");
    check::<Endless>("Endless{again:^Endless,other:u8}");
    check::<Even>("Even{odd:Option<Odd{even:^Even,n:u8}>}");
}

#[test]
fn a_generic_inside_itself_is_not_recursion() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Wrap<T> {
        inner: T,
    }
    mod other {
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "only its shape is of interest")]
        pub(super) struct Item {
            pub(super) inner: super::Item,
        }
    }
    check::<Wrap<Wrap<u8>>>("Wrap{inner:Wrap{inner:u8}}");
    check::<other::Item>("Item{inner:Item{sku:str,n:u32}}");
}

#[test]
fn depth_is_bounded() {
    type Four<T> = Option<Option<Option<Option<T>>>>;
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Deep {
        deep: Four<Four<Four<Four<Four<u8>>>>>,
        flat: u8,
    }
    let shape = shape_of::<Four<Four<Four<Four<Four<u8>>>>>>();
    assert_eq!(shape.text(), format!("{}..{}", "Option<".repeat(17), ">".repeat(17)));
    // What is beside is still seen.
    assert!(shape_of::<Deep>().text().ends_with(",flat:u8}"), "{}", shape_of::<Deep>());
}

#[test]
fn work_is_bounded() {
    macro_rules! doubled {
        ($name:ident $inner:ty) => {
            #[derive(Deserialize)]
            #[expect(dead_code, reason = "only its shape is of interest")]
            struct $name {
                a: Box<$inner>,
                b: Box<$inner>,
                c: Box<$inner>,
                d: Box<$inner>,
            }
        };
    }
    doubled!(A u8);
    doubled!(B A);
    doubled!(C B);
    doubled!(D C);
    doubled!(E D);
    doubled!(F E);
    doubled!(G F);
    doubled!(H G);
    doubled!(I H);
    doubled!(J I);
    let shape = shape_of::<J>();
    assert_eq!(shape, shape_of::<J>());
    assert!(shape.text().contains('_'), "cut off");
}

/// A name that is checked: never one of our examples.
#[derive(Deserialize)]
#[serde(try_from = "String")]
#[expect(dead_code, reason = "only its shape is of interest")]
struct Checked(String);

impl TryFrom<String> for Checked {
    type Error = &'static str;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name == "the one" { Ok(Self(name)) } else { Err("not the one") }
    }
}

#[test]
fn checked_values() {
    fn even<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let n = u32::deserialize(deserializer)?;
        if n % 2 == 0 { Ok(n) } else { Err(D::Error::custom("odd")) }
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Mild {
        step: StepName,
        address: Ipv4Addr,
        port: NonZeroU16,
        #[serde(deserialize_with = "even")]
        even: u32,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Strict {
        before: u8,
        checked: Checked,
        list: Vec<Checked>,
        map: BTreeMap<String, Checked>,
        maybe: Option<Checked>,
        tuple: (u8, Checked, u8),
        inner: Inner,
        kind: OneOf,
        after: Order,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Inner {
        checked: Checked,
        n: u8,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    enum OneOf {
        A(Checked),
        B { checked: Checked, n: u8 },
        C(Order),
    }
    check::<Checked>("str?");
    check::<Mild>("Mild{step:str,address:str,port:u16,even:u32}");
    check::<Strict>(
        "Strict{before:u8,checked:str?,list:[str?],map:{str=>str?},maybe:Option<str?>,tuple:(u8,str?,_),\
         inner:Inner{checked:str?,n:u8},kind:OneOf<A(str?)|B{checked:str?,n:u8}\
         |C(Order{id:str,items:[Item{sku:str,n:u32}]})>,after:Order{id:str,items:[Item{sku:str,n:u32}]}}",
    );
}

#[test]
fn a_checked_struct_shows_what_it_is_read_from() {
    #[derive(Deserialize)]
    #[serde(try_from = "Order")]
    struct Never;
    impl TryFrom<Order> for Never {
        type Error = &'static str;
        fn try_from(_: Order) -> Result<Self, Self::Error> {
            Err("never")
        }
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Around {
        never: Never,
        n: u8,
    }
    check::<Around>("Around{never:Order{id:str,items:[Item{sku:str,n:u32}]}?,n:u8}");
}

#[test]
fn flattened_structs_take_anything() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Flat {
        id: String,
        #[serde(flatten)]
        item: Item,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Around {
        flat: Flat,
        n: u8,
    }
    check::<Around>("Around{flat:any?,n:u8}");
}

#[test]
fn code_that_panics_does_not_take_us_along() {
    #[derive(Deserialize)]
    #[serde(from = "u8")]
    struct Bomb;
    impl From<u8> for Bomb {
        fn from(_: u8) -> Self {
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new("boom"))
        }
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is of interest")]
    struct Around {
        n: String,
        bomb: Bomb,
    }
    check::<Around>("Around{n:str,bomb:u8}");
}

/// Two declarations of a struct with one name, and whether their hashes agree.
macro_rules! compare {
    ($same:literal, { $($one:tt)* }, { $($two:tt)* }) => {{
        mod one {
            #[derive(serde::Deserialize)]
            #[expect(dead_code, reason = "only its shape is of interest")]
            pub(super) struct T { $($one)* }
        }
        mod two {
            #[derive(serde::Deserialize)]
            #[expect(dead_code, reason = "only its shape is of interest")]
            pub(super) struct T { $($two)* }
        }
        let (one, two) = (shape_of::<one::T>(), shape_of::<two::T>());
        assert_eq!(one.hash() == two.hash(), $same, "{one} and {two}");
    }};
}

#[test]
fn the_hash_tells_changes_of_the_form_and_not_of_the_order() {
    compare!(true, { a: u8, b: String }, { b: String, a: u8 });
    compare!(false, { a: u8, b: String }, { a: u8, c: String });
    compare!(false, { a: u8, b: String }, { a: u8 });
    compare!(false, { a: u8 }, { a: u16 });
    compare!(false, { a: u8 }, { a: Option<u8> });
    compare!(true, { a: u8 }, { #[serde(default)] a: u8 });
    compare!(true, { a: u8 }, { #[serde(rename = "a")] z: u8 });
}

#[test]
fn the_hash_is_the_same_in_every_build() {
    let hash = shape_of::<Order>().hash();
    let text = "Order{id:str,items:[Item{n:u32,sku:str}]}";
    assert_eq!(hash.as_str(), &hex::encode(Sha256::digest(text))[..16]);
    assert_eq!(serde_json::to_value(&hash).unwrap(), Value::from(hash.as_str()));
}
