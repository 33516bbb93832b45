//! What a seed came to, as the one line that its process prints and `jepsen-lite` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SeedReport;
use crate::checker::Violation;
use crate::coverage::AMBIGUOUS;
use crate::verdict::Judgement;

/// One seed's end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeedLine {
    pub seed: u64,
    pub result: Judgement,
    pub violations: Vec<Violation>,
    /// Broken liveness, and what stopped the simulation itself.
    pub failures: Vec<String>,
    /// What the checkers could not tell.
    #[serde(default)]
    pub undecided: Vec<String>,
    /// How often each thing happened, by the names of [`crate::coverage`].
    pub coverage: BTreeMap<String, u64>,
    /// The faults of the schedule: number and words.
    pub faults: Vec<(u32, String)>,
    /// Lines of the trace, and a hash over all of them.
    pub trace: (u64, String),
    /// How often the planted bug was really met.
    #[serde(default)]
    pub mutant_struck: u64,
}

impl SeedLine {
    pub fn of(report: &SeedReport) -> Self {
        let verdict = &report.outcome.verdict;
        let has_failed = !verdict.violations.is_empty() || !verdict.summary.failures.is_empty();
        let mut coverage = report.coverage.clone();
        coverage.insert(AMBIGUOUS.to_owned(), verdict.summary.ambiguous);
        SeedLine {
            seed: report.seed,
            // One seed alone need not strike with everything: that is told over all of them.
            result: if has_failed { Judgement::Invalid } else { Judgement::Valid },
            violations: verdict.violations.clone(),
            failures: verdict.summary.failures.clone(),
            undecided: verdict.undecided.clone(),
            coverage,
            faults: report.schedule.iter().map(|timed| (timed.id, timed.to_string())).collect(),
            trace: (report.trace.0, format!("{:016x}", report.trace.1)),
            mutant_struck: 0,
        }
    }

    pub fn failed(seed: u64, error: String) -> Self {
        SeedLine {
            seed,
            result: Judgement::Invalid,
            violations: Vec::new(),
            failures: vec![error],
            undecided: Vec::new(),
            coverage: BTreeMap::new(),
            faults: Vec::new(),
            trace: (0, String::new()),
            mutant_struck: 0,
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data has a JSON form")
    }

    /// Whether no promise was broken.
    pub fn holds(&self) -> bool {
        self.result == Judgement::Valid
    }

    /// In words, the first few lines of what was broken.
    pub fn broken_in_words(&self) -> Vec<String> {
        let violations = self.violations.iter().map(|one| format!("{}: {}", one.promise, one.what));
        self.failures.iter().map(|failure| format!("liveness: {failure}")).chain(violations).collect()
    }
}
