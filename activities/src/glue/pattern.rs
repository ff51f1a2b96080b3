//! Partitions of a dataset as its files lie: the file path pattern of DSS, read as a walk through directories.
//!
//! A pattern maps files to partitions (<https://doc.dataiku.com/dss/latest/partitions/fs_datasets.html>): `%Y`, `%M`, `%D`
//! and `%H` for the one time dimension, `%{name}` for a discrete one, and `.*` for whatever comes after. Hive wants a
//! directory for each partition, so only patterns whose dimensions stand in directories can be told to a metastore. The
//! value of a time dimension is the partition's identifier in DSS, as `2020-01-17`
//! (<https://doc.dataiku.com/dss/latest/partitions/identifiers.html>). Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// The most dimensions and directories a pattern may have.
const MAX_LEVELS: usize = 32;

/// The most discrete values in the name of one directory.
const MAX_VALUES: usize = 3;

/// A part of a directory's name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// This text.
    Literal(String),
    /// So many digits of the time dimension: `Y`, `M`, `D` or `H`.
    Time(char),
    /// The value of the discrete dimension with this number.
    Value(usize),
}

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    parts: Vec<Part>,
}

/// A dimension of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dimension {
    /// As many of year, month, day and hour as this.
    Time(usize),
    /// Any text.
    Discrete,
}

/// What is known of a partition so far, on the way down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    time: BTreeMap<char, String>,
    values: BTreeMap<usize, String>,
}

impl Bound {
    /// The text that a part stands for.
    fn part<'a>(&'a self, part: &'a Part) -> Option<&'a str> {
        match part {
            Part::Literal(text) => Some(text),
            Part::Time(unit) => self.time.get(unit).map(String::as_str),
            Part::Value(ix) => self.values.get(ix).map(String::as_str),
        }
    }
}

/// A pattern that a metastore can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    dimensions: Vec<(String, Dimension)>,
    levels: Vec<Level>,
}

/// Year, month, day, hour: in the order of a time dimension's identifier.
const UNITS: [char; 4] = ['Y', 'M', 'D', 'H'];

/// Characters that make a pattern more than names and places.
const OPERATORS: [char; 11] = ['*', '+', '?', '(', ')', '[', ']', '|', '^', '$', '\\'];

impl Level {
    /// The directory's name, when it is always the same.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(name)] => Some(name),
            _ => None,
        }
    }

    /// Takes in a directory's name; `None` when it is none of this pattern.
    pub fn take(&self, name: &str, bound: &Bound) -> Option<Bound> {
        let mut bound = bound.clone();
        fits(&self.parts, name, &mut bound).then_some(bound)
    }
}

/// Whether `name` is `parts`, one after the other. What was bound before must be the same here.
fn fits(parts: &[Part], name: &str, bound: &mut Bound) -> bool {
    let Some((first, rest)) = parts.split_first() else { return name.is_empty() };
    match first {
        Part::Literal(text) => name.strip_prefix(text.as_str()).is_some_and(|left| fits(rest, left, bound)),
        Part::Time(unit) => {
            let width = if *unit == 'Y' { 4 } else { 2 };
            let Some((digits, left)) = name.split_at_checked(width) else { return false };
            let same = bound.time.get(unit).is_none_or(|known| known == digits);
            if !digits.bytes().all(|b| b.is_ascii_digit()) || !same {
                return false;
            }
            bound.time.insert(*unit, digits.to_owned());
            fits(rest, left, bound)
        }
        Part::Value(dimension) => {
            let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
            for end in ends {
                let (value, left) = name.split_at(end);
                // Most ends are none: seen without a copy.
                if let Some(Part::Literal(text)) = rest.first()
                    && !left.starts_with(text.as_str())
                {
                    continue;
                }
                if bound.values.get(dimension).is_some_and(|known| known != value) {
                    continue;
                }
                let mut tried = bound.clone();
                tried.values.insert(*dimension, value.to_owned());
                if fits(rest, left, &mut tried) {
                    *bound = tried;
                    return true;
                }
            }
            false
        }
    }
}

impl Pattern {
    /// Reads the `partitioning` of a dataset; `None` when it has no partitions.
    ///
    /// # Errors
    /// A fragment that says why a metastore cannot be told of it.
    pub fn of(partitioning: &Value) -> Result<Option<Self>, String> {
        let list = partitioning["dimensions"].as_array().map_or(&[][..], Vec::as_slice);
        if list.is_empty() {
            return Ok(None);
        }
        let mut dimensions = Vec::with_capacity(list.len());
        for dimension in list {
            let name = dimension["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                return Err("a dimension of its partitioning has no name".to_owned());
            }
            let kind = match dimension["type"].as_str() {
                Some("value") => Dimension::Discrete,
                Some("time") => {
                    let period = dimension["params"]["period"].as_str().unwrap_or("DAY");
                    let units = ["YEAR", "MONTH", "DAY", "HOUR"].iter().position(|known| *known == period);
                    Dimension::Time(
                        units.ok_or_else(|| format!("period {period} of {name} is not known"))? + 1,
                    )
                }
                other => return Err(format!("dimension {name} is of type {}", other.unwrap_or("none"))),
            };
            dimensions.push((name.to_owned(), kind));
        }
        let text = partitioning["filePathPattern"].as_str().unwrap_or_default();
        let levels = levels(text, &dimensions)?;
        let pattern = Self { dimensions, levels };
        pattern.check(text)?;
        Ok(Some(pattern))
    }

    fn check(&self, text: &str) -> Result<(), String> {
        let used = |wanted: &Part| self.levels.iter().any(|level| level.parts.contains(wanted));
        let times = self.dimensions.iter().filter(|(_, kind)| matches!(kind, Dimension::Time(_))).count();
        if times > 1 {
            return Err("it has two time dimensions".to_owned());
        }
        for (ix, (name, kind)) in self.dimensions.iter().enumerate() {
            let complete = match kind {
                Dimension::Discrete => used(&Part::Value(ix)),
                Dimension::Time(units) => UNITS[..*units].iter().all(|unit| used(&Part::Time(*unit))),
            };
            if !complete {
                return Err(format!("no directory of its pattern {text} tells dimension {name}"));
            }
        }
        Ok(())
    }

    /// The names of the dimensions, which are the partition keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.dimensions.iter().map(|(name, _)| name.as_str())
    }

    /// The directories from the dataset's path down to a partition's.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The values of a partition, in the order of its keys; `None` while a level is missing.
    pub fn values(&self, bound: &Bound) -> Option<Vec<String>> {
        let value = |(ix, (_, kind)): (usize, &(String, Dimension))| match kind {
            Dimension::Discrete => bound.values.get(&ix).cloned(),
            Dimension::Time(units) => {
                let parts: Option<Vec<&str>> =
                    UNITS[..*units].iter().map(|unit| bound.time.get(unit).map(String::as_str)).collect();
                parts.map(|parts| parts.join("-"))
            }
        };
        self.dimensions.iter().enumerate().map(value).collect()
    }

    /// Where the partition of these values lies, below the dataset's path; `None` for values of another form.
    pub fn path(&self, values: &[String]) -> Option<String> {
        if values.len() != self.dimensions.len() {
            return None;
        }
        let mut bound = Bound::default();
        for (ix, (value, (_, kind))) in values.iter().zip(&self.dimensions).enumerate() {
            match kind {
                Dimension::Discrete => {
                    bound.values.insert(ix, value.clone());
                }
                Dimension::Time(units) => {
                    let parts: Vec<&str> = value.split('-').collect();
                    if parts.len() != *units {
                        return None;
                    }
                    bound.time.extend(UNITS.into_iter().zip(parts.into_iter().map(str::to_owned)));
                }
            }
        }
        let name =
            |level: &Level| level.parts.iter().map(|part| bound.part(part)).collect::<Option<String>>();
        let names: Option<Vec<String>> = self.levels.iter().map(name).collect();
        names.map(|names| names.join("/"))
    }

    /// The values of the partition that lies at a path below the dataset's.
    #[cfg(test)]
    fn values_at(&self, path: &str) -> Option<Vec<String>> {
        let names: Vec<&str> = path.trim_matches('/').split('/').collect();
        if names.len() != self.levels.len() {
            return None;
        }
        let bound =
            names.iter().zip(&self.levels).try_fold(Bound::default(), |b, (n, level)| level.take(n, &b))?;
        self.values(&bound)
    }
}

/// Directories whose names begin so are Hive's and Spark's own; no partition lies there.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

fn levels(text: &str, dimensions: &[(String, Dimension)]) -> Result<Vec<Level>, String> {
    let mut segments: Vec<&str> = text.trim_start_matches('/').split('/').collect();
    if segments.pop() != Some(".*") {
        return Err(format!("its pattern {text} does not end with a directory's files, as /%Y/%M/.*"));
    }
    if segments.is_empty() || segments.len() > MAX_LEVELS {
        return Err(format!("its pattern {text} has {} directories", segments.len()));
    }
    segments.into_iter().map(|segment| level(segment, text, dimensions)).collect()
}

fn level(segment: &str, text: &str, dimensions: &[(String, Dimension)]) -> Result<Level, String> {
    let mut parts: Vec<Part> = Vec::new();
    let literal = |parts: &mut Vec<Part>, c: char| match parts.last_mut() {
        Some(Part::Literal(known)) => known.push(c),
        _ => parts.push(Part::Literal(c.to_string())),
    };
    let mut rest = segment;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '%' {
            if OPERATORS.contains(&c) {
                return Err(format!("its pattern {text} is more than names and places ({c})"));
            }
            literal(&mut parts, c);
            continue;
        }
        let next = rest.chars().next();
        match next {
            Some(unit) if UNITS.contains(&unit) => {
                parts.push(Part::Time(unit));
                rest = &rest[1..];
            }
            Some('{') => {
                let end = rest.find('}').ok_or_else(|| format!("its pattern {text} has an open brace"))?;
                let name = &rest[1..end];
                let of =
                    dimensions.iter().position(|(known, kind)| known == name && *kind == Dimension::Discrete);
                parts.push(Part::Value(of.ok_or_else(|| {
                    format!("its pattern {text} names {name}, which is no discrete dimension")
                })?));
                rest = &rest[end + 1..];
            }
            _ => return Err(format!("its pattern {text} has a % that stands for nothing")),
        }
    }
    if parts.is_empty() {
        return Err(format!("its pattern {text} has an empty directory"));
    }
    let values = parts.iter().filter(|part| matches!(part, Part::Value(_))).count();
    let touching = parts.windows(2).any(|two| matches!(two, [Part::Value(_), Part::Value(_)]));
    if values > MAX_VALUES || touching {
        return Err(format!("the values in directory {segment} of its pattern {text} cannot be told apart"));
    }
    Ok(Level { parts })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(name: &str, period: &str) -> Value {
        json!({"name": name, "type": "time", "params": {"period": period}})
    }

    fn value(name: &str) -> Value {
        json!({"name": name, "type": "value"})
    }

    fn pattern(text: &str, dimensions: &[Value]) -> Result<Option<Pattern>, String> {
        Pattern::of(&json!({"filePathPattern": text, "dimensions": dimensions}))
    }

    fn values(text: &str, dimensions: &[Value], path: &str) -> Option<Vec<String>> {
        pattern(text, dimensions).unwrap().unwrap().values_at(path)
    }

    #[test]
    fn the_examples_of_the_documentation_are_read() {
        assert_eq!(
            values("/%Y/%M/%D/.*", &[time("day", "DAY")], "2020/02/03"),
            Some(vec!["2020-02-03".into()])
        );
        // As DSS itself writes it, without a slash at the beginning.
        assert_eq!(
            values("%Y/%M/%D/%H/.*", &[time("date", "HOUR")], "2020/02/03/13"),
            Some(vec!["2020-02-03-13".into()])
        );
        let two = [time("date", "DAY"), value("country")];
        assert_eq!(
            values("/%Y-%M-%D/%{country}/.*", &two, "2020-02-04/France"),
            Some(vec!["2020-02-04".into(), "France".into()])
        );
        assert_eq!(
            values(
                "/country=%{country}/year=%Y/.*",
                &[time("y", "YEAR"), value("country")],
                "country=IT/year=2021"
            ),
            Some(vec!["2021".into(), "IT".into()])
        );
        assert_eq!(pattern("", &[]).unwrap(), None);
    }

    #[test]
    fn values_lead_back_to_their_place() {
        let two = [time("date", "DAY"), value("country")];
        let pattern = pattern("/c=%{country}/%Y/%M-%D/.*", &two).unwrap().unwrap();
        let values = pattern.values_at("c=IT/2020/02-04").unwrap();
        assert_eq!(pattern.path(&values).as_deref(), Some("c=IT/2020/02-04"));
        assert_eq!(pattern.path(&["2020-02".into(), "IT".into()]), None);
        assert_eq!(pattern.path(&["2020-02-04".into()]), None);
    }

    #[test]
    fn what_does_not_fit_is_no_partition() {
        let day = [time("day", "DAY")];
        for path in ["2020/02", "2020/2/3", "20x0/02/03", "2020/02/03/x", ""] {
            assert_eq!(values("/%Y/%M/%D/.*", &day, path), None, "{path}");
        }
        let country = [value("country")];
        assert_eq!(values("/%{country}-eu/.*", &country, "a-b-eu"), Some(vec!["a-b".into()]));
        assert_eq!(values("/%{country}-eu/.*", &country, "-eu"), None, "a value is not empty");
        assert_eq!(values("/%{country}/x/%{country}/.*", &country, "a/x/b"), None, "twice the same or none");
        assert_eq!(values("/%{country}/x/%{country}/.*", &country, "a/x/a"), Some(vec!["a".into()]));
    }

    #[test]
    fn what_a_metastore_cannot_be_told_says_why() {
        for (text, dimensions, part) in [
            ("/%{country}_%Y.csv", vec![value("country")], "does not end"),
            ("/%Y/.*", vec![time("d", "DAY")], "tells dimension d"),
            ("/%{x}/.*", vec![value("y")], "names x"),
            ("/(a|b)/%{x}/.*", vec![value("x")], "more than names"),
            ("/%Q/.*", vec![value("x")], "stands for nothing"),
            ("/%{x/.*", vec![value("x")], "open brace"),
            ("/%Y/.*", vec![time("a", "YEAR"), time("b", "YEAR")], "two time dimensions"),
            ("/%Y/.*", vec![time("a", "WEEK")], "period WEEK"),
            ("/.*", vec![value("x")], "0 directories"),
            ("/%{x}%{x}/.*", vec![value("x")], "told apart"),
            ("/%{x}//.*", vec![value("x")], "empty directory"),
        ] {
            let why = pattern(text, &dimensions).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn fixed_directories_are_told() {
        let pattern = pattern("/data/%{x}/raw/.*", &[value("x")]).unwrap().unwrap();
        let fixed: Vec<Option<&str>> = pattern.levels().iter().map(Level::fixed).collect();
        assert_eq!(fixed, [Some("data"), None, Some("raw")]);
        assert!(is_hidden("_temporary") && is_hidden(".hive-staging") && !is_hidden("a_b"));
    }
}
