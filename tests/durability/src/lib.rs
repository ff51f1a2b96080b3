//! What the store promises, tried from outside: power cuts, kills, IO faults, damage; and what a durable step costs.

pub mod bench;
