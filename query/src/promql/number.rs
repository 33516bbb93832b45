//! Numbers as Go and Prometheus write them.

/// Go's `strconv.FormatFloat(value, 'f', -1, 64)`: for label values such as `le`.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

/// A sample value in the HTTP API's JSON: like [`format_float`], with an exponent below 1e-6 and from 1e21 on
/// (Prometheus, util/jsonutil).
pub fn format_sample(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() || value.is_infinite() || size == 0.0 || (1e-6..1e21).contains(&size) {
        return format_float(value);
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').expect("the exponent format has an e");
    match exponent.strip_prefix('-') {
        Some(digits) => format!("{mantissa}e-{digits:0>2}"),
        None => format!("{mantissa}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_writes_them() {
        let cases = [
            (1.0, "1"),
            (0.5, "0.5"),
            (1e6, "1000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-7, "1e-07"),
            (-2.5e-12, "-2.5e-12"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
            (-0.0, "-0"),
        ];
        for (value, text) in cases {
            assert_eq!(format_sample(value), text);
        }
    }
}
