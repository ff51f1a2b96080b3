//! Small pictures for the docs: a few boxes, and arrows that may lead back. Boxes stand where they are told to, arrows bend
//! to their left, so that two ways between the same boxes are two lines. Graphs of workflows are laid out by the engine.

use std::fmt::Write as _;

use dssflow_engine::graph::svg::{STYLE, escaped};

/// A box.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// A second line, or nothing.
    pub words: String,
    /// Its class in the style of the engine's pictures, and the sign that goes with it.
    pub look: (&'static str, &'static str),
    /// Its middle.
    pub at: (f64, f64),
}

/// Above the picture: its heading.
const HEAD: f64 = 56.0;
const BLANK: f64 = 24.0;
/// Half the height of a box.
const HIGH: f64 = 22.0;
/// Widths of a character of a name and of words below it, and what stands around them.
const NAME_CHAR: f64 = 7.4;
const WORD_CHAR: f64 = 5.9;
const BESIDE: f64 = 44.0;
/// How far an arrow's curve leaves the straight way, as a part of it, and at most.
const BEND: f64 = 0.13;
const BEND_MOST: f64 = 46.0;
/// Points that are tried on a curve to find where it leaves a box.
const PARTS: u32 = 200;

type Point = (f64, f64);

impl Named {
    /// Half of the box.
    fn half(&self) -> Point {
        let wide =
            |text: &str, char: f64| f64::from(u32::try_from(text.chars().count()).unwrap_or(u32::MAX)) * char;
        let width = wide(&self.name, NAME_CHAR).max(wide(&self.words, WORD_CHAR)) + BESIDE;
        (width * 0.5, HIGH)
    }
}

/// The picture; arrows are pairs of boxes by their place in the list.
pub fn svg(heading: &str, boxes: &[Named], arrows: &[(usize, usize)]) -> String {
    let most = |of: fn(&Named) -> f64| boxes.iter().map(of).fold(0.0, f64::max);
    let width = most(|b| b.at.0 + b.half().0) + BLANK;
    let height = most(|b| b.at.1 + b.half().1) + BLANK + HEAD;
    let heading = escaped(heading);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\">\n<title>{heading}</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n<text class=\"heading\" x=\"{BLANK}\" y=\"34\">{heading}</text>\n\
         <g transform=\"translate(0 {HEAD})\">\n"
    );
    for &(from, to) in arrows {
        arrow(&mut out, &boxes[from], &boxes[to]);
    }
    for named in boxes {
        let half = named.half();
        let (x, y) = (named.at.0 - half.0, named.at.1 - half.1);
        let (class, sign) = named.look;
        let name_at = if named.words.is_empty() { HIGH + 4.0 } else { 19.0 };
        put(&mut out, format_args!("<g class=\"{class}\" transform=\"translate({x:.1} {y:.1})\">"));
        let (w, h) = (half.0 * 2.0, half.1 * 2.0);
        put(&mut out, format_args!("<rect class=\"box\" width=\"{w}\" height=\"{h}\" rx=\"7\"/>"));
        let radius = if sign.is_empty() { 4 } else { 8 };
        put(&mut out, format_args!("<circle class=\"dot\" cx=\"17\" cy=\"{HIGH}\" r=\"{radius}\"/>"));
        put(&mut out, format_args!("<text class=\"sign\" x=\"17\" y=\"{}\">{sign}</text>", HIGH + 4.0));
        put(
            &mut out,
            format_args!("<text class=\"name\" x=\"30\" y=\"{name_at}\">{}</text>", escaped(&named.name)),
        );
        put(
            &mut out,
            format_args!("<text class=\"small\" x=\"30\" y=\"35\">{}</text></g>\n", escaped(&named.words)),
        );
    }
    out.push_str("</g>\n</svg>\n");
    out
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

fn arrow(out: &mut String, from: &Named, to: &Named) {
    let ((ax, ay), (bx, by)) = (from.at, to.at);
    let (dx, dy) = (bx - ax, by - ay);
    let length = dx.hypot(dy);
    let bend = (length * BEND).min(BEND_MOST) * 2.0 / length;
    let middle = (f64::midpoint(ax, bx) + dy * bend, f64::midpoint(ay, by) - dx * bend);
    let on = |t: f64| -> Point {
        let mix = |a: f64, m: f64, b: f64| (1.0 - t).powi(2) * a + 2.0 * t * (1.0 - t) * m + t * t * b;
        (mix(ax, middle.0, bx), mix(ay, middle.1, by))
    };
    let outside = |(x, y): Point, named: &Named| {
        let half = named.half();
        (x - named.at.0).abs() > half.0 + 1.0 || (y - named.at.1).abs() > half.1 + 1.0
    };
    let points: Vec<Point> = (0..=PARTS).map(|n| on(f64::from(n) / f64::from(PARTS))).collect();
    let seen: Vec<Point> = points.into_iter().filter(|p| outside(*p, from) && outside(*p, to)).collect();
    let [first, .., before, last] = seen.as_slice() else { return };
    let every_tenth = seen.iter().step_by(10).skip(1);
    put(out, format_args!("<path class=\"line\" d=\"M{:.1} {:.1}", first.0, first.1));
    every_tenth.chain([last]).for_each(|(x, y)| put(out, format_args!("L{x:.1} {y:.1}")));
    put(out, format_args!("\"><title>{} → {}</title></path>", escaped(&from.name), escaped(&to.name)));
    // The tip, turned into the arrow's last direction.
    let (ux, uy) = (last.0 - before.0, last.1 - before.1);
    let long = ux.hypot(uy);
    let (ux, uy) = (ux / long, uy / long);
    let side = |s: f64| (last.0 - ux * 8.0 - uy * 4.0 * s, last.1 - uy * 8.0 + ux * 4.0 * s);
    let ((lx, ly), (rx, ry)) = (side(1.0), side(-1.0));
    put(
        out,
        format_args!(
            "<path class=\"tip\" d=\"M{:.1} {:.1}L{lx:.1} {ly:.1}L{rx:.1} {ry:.1}z\"/>\n",
            last.0, last.1
        ),
    );
}

/// Places on an ellipse, clockwise from the top, for boxes that are at most so wide.
pub fn around(count: u32, (wide, high): (f64, f64), widest: f64) -> impl Iterator<Item = (f64, f64)> {
    (0..count).map(move |n| {
        let angle = std::f64::consts::TAU * f64::from(n) / f64::from(count);
        let (x, y) = (wide * angle.sin(), -high * angle.cos());
        (x + wide + widest / 2.0 + BLANK, y + high + HIGH)
    })
}
