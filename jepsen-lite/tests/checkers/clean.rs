//! What keeps every promise is valid, whatever the seed.

use jepsen_lite::verdict::Judgement;
use proptest::prelude::*;

use crate::model::clean;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_history_that_keeps_every_promise_is_valid(seed in any::<u64>()) {
        let verdict = clean(seed).verdict();
        prop_assert_eq!(verdict.result, Judgement::Valid, "{}", verdict);
    }
}

#[test]
fn the_model_has_what_the_checkers_look_at() {
    let verdict = clean(7).verdict();
    let summary = &verdict.summary;
    assert!(summary.items > 5_000 && summary.partial > 5 && summary.counts > 50, "{verdict}");
    assert!(summary.compared > 50 && summary.visible_items > 1_000, "{verdict}");
    assert!(verdict.to_string().lines().count() <= 40, "{verdict}");
    assert!(verdict.to_string().contains("all of them in the last reads"), "{verdict}");
}
