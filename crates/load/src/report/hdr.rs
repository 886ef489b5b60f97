//! The HDR interval log: one V2 histogram of microseconds per interval, readable by the usual HdrHistogram tools.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};

use super::StormReport;

/// The maximum column of the log is in milliseconds, as its readers expect of microsecond histograms.
const MICROSECONDS_PER_MILLISECOND: f64 = 1_000.0;

pub(super) fn write(report: &StormReport, mut out: &mut dyn Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    let start = start_time(report.elapsed);
    builder
        .add_comment(&format!("storm, seed {}; latency in microseconds from the intended start", report.seed))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MICROSECONDS_PER_MILLISECOND);
    let mut log = builder.begin_log_with(&mut out, &mut serializer)?;
    let length = report.timeline.interval_s();
    for (index, interval) in (0_u64..).zip(report.timeline.intervals()) {
        log.write_histogram(
            &interval.latency_us,
            Duration::from_secs(index * length),
            Duration::from_secs(length),
            None,
        )
        .map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
        })?;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the log's head names the time of day; nothing is measured with it"
)]
fn start_time(elapsed: Duration) -> SystemTime {
    SystemTime::now() - elapsed
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::timeline::record;

    #[test]
    fn the_log_reads_back_with_every_sample() {
        let mut report = StormReport::empty_for_tests();
        for (second, value) in [(0, 100), (0, 200), (2, 5_000_000)] {
            record(&mut report.timeline.at(Duration::from_secs(second)).latency_us, value);
        }
        let mut log = Vec::new();
        write(&report, &mut log).unwrap();
        let mut counts = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = decode_base64(interval.encoded_histogram());
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                counts.push(histogram.len());
            }
        }
        assert_eq!(counts, [2, 0, 1]);
    }

    fn decode_base64(text: &str) -> Vec<u8> {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut bytes = Vec::new();
        let (mut bits, mut value) = (0, 0_u32);
        for letter in text.bytes().filter(|letter| *letter != b'=') {
            let digit = LETTERS.iter().position(|known| *known == letter).unwrap();
            value = (value << 6) | digit as u32;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push((value >> bits) as u8);
                value &= (1 << bits) - 1;
            }
        }
        bytes
    }
}
