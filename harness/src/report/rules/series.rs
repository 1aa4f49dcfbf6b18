//! The shape of a service in words, from the fields of its workload; and series: workloads that
//! differ in one field.

use crate::load::limits::Churn;
use crate::matrix::{Matrix, Workload};
use crate::text::{grouped, list, significant};

/// A field of a workload in words.
#[derive(Clone, PartialEq)]
struct Field {
    /// The words before it in a shape.
    lead: &'static str,
    /// The words before it in a sentence.
    preposition: &'static str,
    value: String,
    /// The words after a value of 1, and after any other.
    units: [&'static str; 2],
    /// The place among the values of a series.
    order: f64,
    /// True if a shape names it although all of its workloads have the same.
    is_said: bool,
}

impl Field {
    fn new(value: String, units: [&'static str; 2], order: f64, is_said: bool) -> Self {
        Self { lead: "", preposition: "with ", value, units, order, is_said }
    }

    fn after(self, lead: &'static str, preposition: &'static str) -> Self {
        Self { lead, preposition, ..self }
    }

    fn unit(&self) -> &'static str {
        self.units[usize::from(self.value != "1")]
    }
}

/// Returns all fields, in the order in which a shape names them.
fn fields(workload: &Workload, matrix: &Matrix) -> Vec<Field> {
    let counted =
        |value: u64, units, is_said| Field::new(grouped(value), units, value as f64, is_said);
    let (rate_per_s, churn) = (workload.rate(), workload.churn.map(Churn::get));
    let (message_bytes, pipeline) = (workload.message_bytes.get(), workload.pipeline.get() as u64);
    let idle_spinner = workload.idle_spinner;
    let idle = workload.idle_connections as u64;
    let closed = if rate_per_s.is_none() { "closed loop" } else { "" };
    let open = if rate_per_s.is_some() && workload.arrival().name() == "uniform" {
        "open loop, uniform, "
    } else {
        "open loop, "
    };
    let rate = rate_per_s.map_or_else(String::new, significant);
    let echoes = churn.map_or_else(|| "unlimited".to_owned(), grouped);
    let echo_units = [" echo on each connection", " echoes on each connection"];
    let churn_order = churn.map_or(f64::INFINITY, |echoes| echoes as f64);
    let work_ns = workload.work_ns.unwrap_or(0);
    let workers = u64::from(workload.workers.unwrap_or(matrix.workers));
    let spinner = if idle_spinner { "CPUs that never halt" } else { "CPUs that halt" };
    vec![
        counted(workload.connections as u64, [" connection", " connections"], true),
        counted(idle, [" idle connection", " idle connections"], idle > 0)
            .after("beside ", "beside "),
        // Never what differs within a series: the rate would be another too.
        Field::new(closed.to_owned(), [""; 2], 0.0, rate_per_s.is_none()),
        Field::new(rate, ["/s"; 2], rate_per_s.unwrap_or_default(), rate_per_s.is_some())
            .after(open, "at "),
        Field::new(bytes(message_bytes), [" messages"; 2], message_bytes as f64, true),
        counted(pipeline, [" in flight on each"; 2], pipeline > 1),
        Field::new(echoes, echo_units, churn_order, churn.is_some()),
        Field::new(time(work_ns), [" of work"; 2], work_ns as f64, work_ns > 0),
        counted(workers, [" worker", " workers"], workload.workers.is_some()),
        Field::new(spinner.to_owned(), [""; 2], f64::from(u8::from(idle_spinner)), idle_spinner),
    ]
}

/// Writes a size.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        _ if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{} B", grouped(bytes)),
    }
}

fn time(ns: u64) -> String {
    match ns {
        _ if ns > 0 && ns.is_multiple_of(1_000_000) => format!("{} ms", grouped(ns / 1_000_000)),
        _ if ns.is_multiple_of(1000) => format!("{} µs", grouped(ns / 1000)),
        _ => format!("{} ns", grouped(ns)),
    }
}

/// Workloads that differ in one field at most, in the order of that field.
pub struct Series<'a> {
    pub workloads: Vec<&'a Workload>,
    fields: Vec<Vec<Field>>,
    /// The field that differs; none of a single workload.
    axis: Option<usize>,
}

impl<'a> Series<'a> {
    /// Returns the workloads of a matrix, each in the first series that it continues.
    pub fn all(matrix: &'a Matrix) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for workload in &matrix.workloads {
            let fields = fields(workload, matrix);
            let continued =
                found.iter_mut().find_map(|series| Some((series.axis_with(&fields)?, series)));
            match continued {
                Some((axis, series)) => {
                    let place =
                        series.fields.partition_point(|of| of[axis].order < fields[axis].order);
                    series.axis = Some(axis);
                    series.workloads.insert(place, workload);
                    series.fields.insert(place, fields);
                }
                None => {
                    found.push(Self { workloads: vec![workload], fields: vec![fields], axis: None })
                }
            }
        }
        found
    }

    /// Returns the one field in which one more workload would differ from all; none if it differs
    /// in others too, or in none.
    fn axis_with(&self, fields: &[Field]) -> Option<usize> {
        let differing: Vec<usize> =
            (0..fields.len()).filter(|&at| self.fields[0][at] != fields[at]).collect();
        let &[axis] = &differing[..] else { return None };
        let is_new = self.fields.iter().all(|of| of[axis] != fields[axis]);
        (is_new && self.axis.is_none_or(|known| known == axis)).then_some(axis)
    }

    /// Describes some of its workloads as a shape of service: `64 connections, open loop, 7,800 to
    /// 140,000/s, 64 B messages`.
    pub fn shape(&self, points: &[usize]) -> String {
        let Some(&first) = points.first() else { return String::new() };
        let shown = self.fields[first].iter().enumerate().filter_map(|(at, field)| {
            let is_axis = self.axis == Some(at);
            let words =
                if is_axis { self.values(at, points) } else { field.value.clone() + field.unit() };
            (field.is_said || is_axis).then(|| format!("{}{words}", field.lead))
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// Describes where in the series some of its workloads are, as the end of a sentence: ` at
    /// 7,800 and 23,000/s`. Nothing of a series that has but one.
    pub fn place(&self, points: &[usize]) -> String {
        let (Some(axis), Some(&first)) = (self.axis, points.first()) else { return String::new() };
        format!(" {}{}", self.fields[first][axis].preposition, self.values(axis, points))
    }

    /// Writes a range if they are three or more that follow each other.
    fn values(&self, axis: usize, points: &[usize]) -> String {
        let of = |at: usize| &self.fields[at][axis];
        let values: Vec<String> = points.iter().map(|&at| of(at).value.clone()).collect();
        let unit = match points {
            [one] => of(*one).unit(),
            [first, ..] => of(*first).units[1],
            [] => "",
        };
        let is_range = points.len() > 2 && points.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        match &values[..] {
            [first, .., last] if is_range => format!("{first} to {last}{unit}"),
            values => list(values) + unit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(workloads: &str) -> Matrix {
        let rows = workloads.split(';').enumerate().map(|(index, fields)| {
            format!(
                "[[workload]]\nname = \"w{index}\"\nquestion = \"q\"\n{}\n",
                fields.replace(',', "\n")
            )
        });
        let head =
            "question = \"q\"\nbaseline = \"epoll-et\"\nbackends = [{ backend = \"epoll-et\" }]\n";
        toml::from_str(&(head.to_owned() + &rows.collect::<String>())).expect("a matrix")
    }

    fn shapes(workloads: &str) -> Vec<String> {
        let matrix = matrix(workloads);
        Series::all(&matrix)
            .iter()
            .map(|series| series.shape(&(0..series.workloads.len()).collect::<Vec<_>>()))
            .collect()
    }

    #[test]
    fn workloads_that_differ_in_one_field_are_a_series() {
        let cases: [(&str, &[&str]); 7] = [
            (
                "connections = 64,message_bytes = 64,rate_per_s = 7800.0;\
                 connections = 64,message_bytes = 64,rate_per_s = 140000.0;\
                 connections = 64,message_bytes = 64,rate_per_s = 23000.0",
                &["64 connections, open loop, 7,800 to 140,000/s, 64 B messages"],
            ),
            (
                "connections = 1,message_bytes = 64;connections = 64,message_bytes = 64;\
                 connections = 1,message_bytes = 4096;connections = 64,message_bytes = 4096",
                &[
                    "1 and 64 connections, closed loop, 64 B messages",
                    "1 and 64 connections, closed loop, 4 KiB messages",
                ],
            ),
            (
                "connections = 64,message_bytes = 64;connections = 64,message_bytes = 64,churn = \
                 10;connections = 64,message_bytes = 64,churn = 1",
                &["64 connections, closed loop, 64 B messages, 1 to unlimited echoes on each \
                     connection"],
            ),
            (
                "connections = 64,message_bytes = 64;connections = 64,message_bytes = 64,work_ns = \
                 1000",
                &["64 connections, closed loop, 64 B messages, 0 µs and 1 µs of work"],
            ),
            (
                "connections = 64,message_bytes = 64,rate_per_s = 1.0;connections = \
                 64,message_bytes = 64",
                &[
                    "64 connections, open loop, 1.00/s, 64 B messages",
                    "64 connections, closed loop, 64 B messages",
                ],
            ),
            (
                "connections = 4,message_bytes = 1048576,pipeline = 8;connections = \
                 1,message_bytes = 64",
                &[
                    "4 connections, closed loop, 1 MiB messages, 8 in flight on each",
                    "1 connection, closed loop, 64 B messages",
                ],
            ),
            // The same twice is no series.
            (
                "connections = 1,message_bytes = 64;connections = 1,message_bytes = 64",
                &["1 connection, closed loop, 64 B messages"; 2],
            ),
        ];
        for (workloads, expected) in cases {
            assert_eq!(shapes(workloads), expected, "{workloads}");
        }
    }

    #[test]
    fn a_place_is_a_range_only_where_nothing_is_left_out() {
        let workloads: Vec<String> = [0, 10, 20, 30, 40]
            .map(|idle| format!("connections = 1,message_bytes = 64,idle_connections = {idle}"))
            .to_vec();
        let matrix = matrix(&workloads.join(";"));
        let all = Series::all(&matrix);
        let [series] = &all[..] else { panic!("{}", all.len()) };
        assert_eq!(series.place(&[1]), " beside 10 idle connections");
        assert_eq!(series.place(&[1, 2]), " beside 10 and 20 idle connections");
        assert_eq!(series.place(&[0, 1, 2]), " beside 0 to 20 idle connections");
        assert_eq!(series.place(&[0, 1, 3]), " beside 0, 10 and 30 idle connections");
    }
}
