//! One case: an expression with what it means field by field, intervals, a zone, a stretch of time, and how the clock
//! goes.

use dssflow_tests::chance::Chance;

pub(crate) const MINUTE: u64 = 60;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

/// Zones with daylight saving of all sorts: by an hour, by half an hour, at midnight, in the other half of the year, in
/// Ramadan, and one that left out a day.
pub(crate) const ZONES: [&str; 14] = [
    "Europe/Berlin",
    "America/New_York",
    "America/Los_Angeles",
    "Europe/London",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "America/Santiago",
    "America/Havana",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Pacific/Auckland",
    "America/St_Johns",
    "Pacific/Apia",
    "UTC",
];

/// A field of an expression: what is written, and the values that it means.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) text: String,
    pub(crate) values: Vec<u32>,
    /// Whether it is `*`: then the days are not restricted.
    pub(crate) any: bool,
}

/// An expression that was made, not read.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub(crate) second: Field,
    pub(crate) minute: Field,
    pub(crate) hour: Field,
    pub(crate) day: Field,
    pub(crate) month: Field,
    /// 0 is Sunday.
    pub(crate) weekday: Field,
    pub(crate) year: Field,
    /// How many fields are written: 5, 6 or 7.
    pub(crate) fields: usize,
}

impl Expression {
    pub(crate) fn text(&self) -> String {
        let Self { second, minute, hour, day, month, weekday, year, fields } = self;
        let mut all = vec![minute, hour, day, month, weekday];
        if *fields >= 6 {
            all.insert(0, second);
        }
        if *fields == 7 {
            all.push(year);
        }
        all.iter().map(|field| field.text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// Every so many seconds since 1970, all so many later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) every: u64,
    pub(crate) offset: u64,
}

/// What the clock of the machine does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// It goes on by so many seconds, and somebody looks.
    On(u64),
    /// It is put forward, or the machine slept.
    Forward(u64),
    /// It is put back.
    Back(u64),
    /// The process dies and another one goes on, after so many seconds.
    Dies(u64),
}

pub(crate) struct Case {
    /// None when there are only intervals.
    pub(crate) expression: Option<Expression>,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) zone: &'static str,
    /// In seconds since 1970.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) window: u64,
    pub(crate) jitter: u64,
    pub(crate) moves: Vec<Move>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { expression, intervals, zone, from, to, window, jitter, moves } = self;
        if let Some(expression) = expression {
            write!(f, "{:?} in {zone}, ", expression.text())?;
        }
        for Interval { every, offset } in intervals {
            write!(f, "every {every} and {offset}, ")?;
        }
        write!(f, "{from}..{to}, window {window}, jitter {jitter}, ")?;
        write!(f, "{moves:?}")
    }
}

/// 2024-01-01T00:00:00Z.
const YEAR_2024: u64 = 1_704_067_200;

impl Case {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut chance = Chance::new(seed).fork(number);
        let zone = *chance.pick(&ZONES);
        let by_second = chance.percent(20);
        // Around something awkward, or anywhere in some years.
        let middle = match chance.below(10) {
            0..6 => change_of(zone, &mut chance).unwrap_or_else(|| anywhere(&mut chance)),
            // The end of February 2024 and 2028, and the turn of a year.
            6 => YEAR_2024 + 59 * DAY + chance.below(DAY),
            7 => YEAR_2024 + (4 * 365 + 1 + 59) * DAY + chance.below(DAY),
            8 => YEAR_2024 + 366 * DAY + chance.below(5) * 365 * DAY - 12 * HOUR + chance.below(DAY),
            _ => anywhere(&mut chance),
        };
        let length = if by_second { 3 * HOUR } else { chance.between(1, 3) * DAY };
        let from = middle - chance.between(length / 4, 3 * length / 4);
        let window = *chance.pick(&[10, 60, 10 * MINUTE, HOUR, DAY]);
        let jitter = if chance.percent(25) { chance.between(1, 2 * HOUR) } else { 0 };
        let mut case = Self {
            expression: Some(expression(by_second, from, &mut chance)),
            intervals: Vec::new(),
            zone,
            from,
            to: from + length,
            window,
            jitter,
            moves: Vec::new(),
        };
        case.moves = moves(length, by_second, &mut chance);
        // From a stream of their own, so that the rest of a case is what it would be without.
        let mut chance = chance.fork(number);
        match chance.below(100) {
            0..12 => {
                case.expression = None;
                case.intervals.push(interval(by_second, &mut chance));
                if chance.percent(40) {
                    case.intervals.push(interval(by_second, &mut chance));
                }
            }
            12..30 => case.intervals.push(interval(by_second, &mut chance)),
            _ => {}
        }
        case
    }

    /// How far from one to the next of the moments that may be an instant: a second or a minute.
    pub(crate) fn step(&self) -> u64 {
        let by_second = self.expression.as_ref().is_some_and(|of| of.second.any || of.second.values != [0]);
        let whole = |of: &Interval| of.every.is_multiple_of(MINUTE) && of.offset.is_multiple_of(MINUTE);
        if by_second || !self.intervals.iter().all(whole) { 1 } else { MINUTE }
    }

    /// The earliest that the clock ever shows.
    pub(crate) fn earliest(&self) -> u64 {
        let (mut now, mut earliest) = (self.from, self.from);
        for step in &self.moves {
            match *step {
                Move::On(s) | Move::Forward(s) | Move::Dies(s) => now += s,
                Move::Back(s) => now -= s.min(now),
            }
            earliest = earliest.min(now);
        }
        earliest
    }
}

fn anywhere(chance: &mut Chance) -> u64 {
    YEAR_2024 + DAY * 3 + chance.below(8 * 365 * DAY)
}

/// A moment at which the zone's clocks are changed, looked for hour by hour; Apia's missing day among them.
fn change_of(zone: &'static str, chance: &mut Chance) -> Option<u64> {
    let zone_of = dssflow_engine::schedule::Zone::find(zone).expect("a zone of the list");
    let offset = |at: u64| {
        let at = dssflow_engine::time::Timestamp::from_millis(at * 1000);
        zone_of.offset_s(at).expect("a time of our days")
    };
    let begin = if zone == "Pacific/Apia" { 1_314_000_000 } else { anywhere(chance) / HOUR * HOUR };
    (0..366 * 24).map(|n| begin + n * HOUR).find(|at| offset(*at) != offset(at + HOUR)).map(|at| at + HOUR)
}

fn any() -> Field {
    Field { text: "*".to_owned(), values: Vec::new(), any: true }
}

/// A field over `low..=high`, written in one of the ways there are.
fn field(low: u32, high: u32, near: u32, chance: &mut Chance) -> Field {
    let between = |chance: &mut Chance, low: u32, high: u32| -> u32 {
        u32::try_from(chance.between(u64::from(low), u64::from(high))).expect("small")
    };
    match chance.below(6) {
        0 => any(),
        1 => {
            let step = between(chance, 1, (high - low).min(20));
            Field {
                text: format!("*/{step}"),
                values: (low..=high).step_by(step as usize).collect(),
                any: false,
            }
        }
        2 => {
            let from = between(chance, low, high);
            let to = between(chance, from, high);
            Field { text: format!("{from}-{to}"), values: (from..=to).collect(), any: false }
        }
        3 => {
            let mut values: Vec<u32> = (0..3).map(|_| between(chance, low, high)).collect();
            values.push(near.clamp(low, high));
            values.sort_unstable();
            values.dedup();
            let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
            Field { text: texts.join(","), values, any: false }
        }
        4 => {
            let from = between(chance, low, high);
            let to = between(chance, from, high);
            let step = between(chance, 1, 5);
            let values = (from..=to).step_by(step as usize).collect();
            Field { text: format!("{from}-{to}/{step}"), values, any: false }
        }
        _ => {
            // Near what happens there: the hours of a change, the day of the stretch.
            let value = near.clamp(low, high);
            Field { text: value.to_string(), values: vec![value], any: false }
        }
    }
}

fn expression(by_second: bool, from: u64, chance: &mut Chance) -> Expression {
    let (year, month, day, ..) = crate::oracle::civil(i64::try_from(from + DAY).expect("a time of our days"));
    let zero = Field { text: "0".to_owned(), values: vec![0], any: false };
    let restricted = |chance: &mut Chance| chance.percent(25);
    let hour = u32::try_from(chance.below(4)).expect("small");
    let near_minute = *chance.pick(&[0, 15, 30, 59]);
    let mut made = Expression {
        second: if by_second { field(0, 59, 30, chance) } else { zero },
        minute: field(0, 59, near_minute, chance),
        hour: if by_second { any() } else { field(0, 23, hour, chance) },
        day: if restricted(chance) { field(1, 31, day, chance) } else { any() },
        month: if restricted(chance) { field(1, 12, month, chance) } else { any() },
        weekday: if restricted(chance) { field(0, 6, 0, chance) } else { any() },
        year: any(),
        fields: if by_second { 6 } else { 5 },
    };
    if chance.percent(20) {
        let year = u32::try_from(year).expect("a year of our days");
        made.year = Field { text: format!("{year}-{}", year + 1), values: vec![year, year + 1], any: false };
        made.fields = 7;
    } else if !by_second && chance.percent(20) {
        made.fields = 6;
    }
    made
}

/// By whole minutes where the stretch is long. Half of them with an offset.
fn interval(by_second: bool, chance: &mut Chance) -> Interval {
    let every = if by_second {
        *chance.pick(&[7, 45, MINUTE, 61, 90, 10 * MINUTE, HOUR - 1, HOUR + 1])
    } else {
        let some = chance.between(5, 3_000) * MINUTE;
        *chance.pick(&[5 * MINUTE, 7 * MINUTE, 90 * MINUTE, HOUR, 7 * HOUR, DAY, 25 * HOUR, some, some])
    };
    let unit = if by_second { 1 } else { MINUTE };
    let offset = if chance.percent(50) { chance.below(every / unit) * unit } else { 0 };
    Interval { every, offset }
}

fn moves(length: u64, by_second: bool, chance: &mut Chance) -> Vec<Move> {
    let step = if by_second { 40 } else { 20 * MINUTE };
    let (mut moves, mut at) = (Vec::new(), 0_i64);
    let bound = i64::try_from(length).expect("days");
    while at < bound && moves.len() < 400 {
        let next = match chance.below(100) {
            0..3 => Move::Forward(*chance.pick(&[30, 10 * MINUTE, 2 * HOUR, 20 * HOUR])),
            3..5 => Move::Back(*chance.pick(&[5, 59, 61, 10 * MINUTE, HOUR, 5 * HOUR])),
            5..7 => Move::Dies(chance.between(1, step * 6)),
            _ => Move::On(chance.between(1, step)),
        };
        at += match next {
            Move::On(s) | Move::Forward(s) | Move::Dies(s) => i64::try_from(s).expect("small"),
            Move::Back(s) => -i64::try_from(s).expect("small"),
        };
        moves.push(next);
    }
    moves
}
