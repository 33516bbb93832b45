//! The tree of key orders, while rows are added to it.

use std::collections::HashMap;

use crate::column::values;
use crate::model::{AnyValue, Attributes};

/// Rows so far, by node and column.
#[derive(Debug)]
pub(super) struct Shapes<'a> {
    pub(super) columns: Vec<Column<'a>>,
    pub(super) nodes: Vec<Node>,
    /// The node of each row.
    pub(super) rows: Vec<u32>,
    column_of: HashMap<(&'a str, u8), u32>,
    node_of: HashMap<(u32, u32), u32>,
}

/// All values of one key and type, in the order of the rows.
#[derive(Debug)]
pub(super) struct Column<'a> {
    pub(super) key: &'a str,
    pub(super) code: u8,
    pub(super) values: Vec<&'a AnyValue>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    pub(super) parent: u32,
    pub(super) column: u32,
    /// Where the last row went on from here; 0 before the first one did.
    next: u32,
}

impl Default for Shapes<'_> {
    fn default() -> Self {
        Shapes {
            columns: Vec::new(),
            nodes: vec![Node::default()],
            rows: Vec::new(),
            column_of: HashMap::new(),
            node_of: HashMap::new(),
        }
    }
}

impl<'a> Shapes<'a> {
    pub(super) fn push(&mut self, row: &'a Attributes) {
        let mut at = 0;
        for (key, value) in &row.0 {
            at = self.step(at, key, values::type_code(value));
            let column = self.nodes[at as usize].column;
            self.columns[column as usize].values.push(value);
        }
        self.rows.push(at);
    }

    /// The node that a key of a type leads to. Usually it is where the last row went.
    fn step(&mut self, from: u32, key: &'a str, code: u8) -> u32 {
        let next = self.nodes[from as usize].next;
        if next != 0 {
            let column = &self.columns[self.nodes[next as usize].column as usize];
            if column.code == code && column.key == key {
                return next;
            }
        }
        let columns = &mut self.columns;
        let column = *self.column_of.entry((key, code)).or_insert_with(|| {
            columns.push(Column { key, code, values: Vec::new() });
            columns.len() as u32 - 1
        });
        let nodes = &mut self.nodes;
        let node = *self.node_of.entry((from, column)).or_insert_with(|| {
            nodes.push(Node { parent: from, column, next: 0 });
            nodes.len() as u32 - 1
        });
        nodes[from as usize].next = node;
        node
    }
}
