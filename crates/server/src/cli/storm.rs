//! `yoink storm`: a thin wrapper around the crowd.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use yoink_load::report::{Decoration, Format};
use yoink_load::{Arrivals, Assertion, Audit, Preset, ProgressMode, Route, StormOptions, parse_stages};

use super::api_client::{resolve, runtime};
use super::args::{ArrivalsName, PresetName, RouteName, StormArgs};
use super::output::Output;
use super::process;

/// How long a steady rate lasts if nothing else is said.
const RATE_DURATION: Duration = Duration::from_secs(10);

/// Runs a storm. The exit code is 0 only if the audit, the preset's expectations and all assertions hold.
pub(super) fn run(args: &StormArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    process::open_many_files();
    let options = options(args)?;
    let report = runtime()?.block_on(yoink_load::run(options))?;
    if args.json {
        output.json(&report.to_json())?;
    } else {
        let mut text = Vec::new();
        report.write(&mut text, Format::Text(decoration(output)))?;
        output.raw(&String::from_utf8_lossy(&text))?;
    }
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lines and colours are for terminals, and colours for people who want them (<https://no-color.org>).
fn decoration(output: &Output) -> Decoration {
    let wants_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match (output.is_terminal(), wants_colours) {
        (false, _) => Decoration::Plain,
        (true, false) => Decoration::Lines,
        (true, true) => Decoration::Colours,
    }
}

fn options(args: &StormArgs) -> anyhow::Result<StormOptions> {
    let (url, admin_key) = resolve(&args.target)?;
    let stages = match &args.rate {
        Some(rate) => parse_stages(rate, args.duration.unwrap_or(RATE_DURATION)).context("--rate")?,
        None => Vec::new(),
    };
    let asserts = args.asserts.iter().map(|text| text.parse::<Assertion>().context("--assert"));
    Ok(StormOptions {
        target: url.as_str().trim_end_matches('/').to_owned(),
        product: args.product.clone(),
        quantity: args.quantity,
        key: args.key.clone().or_else(|| admin_key.as_ref().map(|key| key.expose().to_owned())),
        admin_key: admin_key.map(|key| key.expose().to_owned()),
        route: args.route.map(route),
        preset: args.preset.map(preset),
        buyers: args.buyers,
        requests: args.requests,
        duration: if args.rate.is_some() { None } else { args.duration },
        stages,
        arrivals: match args.arrivals {
            ArrivalsName::Even => Arrivals::Even,
            ArrivalsName::Random => Arrivals::Random,
        },
        think_time: args.think_time.unwrap_or_default(),
        concurrency: args.concurrency,
        timeout: args.timeout,
        same_key_times: args.same_key_times,
        seed: args.seed,
        audit: if args.no_audit { Audit::Skip } else { Audit::Full },
        asserts: asserts.collect::<Result<_, _>>()?,
        progress: ProgressMode::Auto,
        html_path: args.report.clone(),
        hdr_path: args.hdr.clone(),
        svg_dir: args.svg.clone(),
        record_path: args.record.clone(),
        ..StormOptions::default()
    })
}

fn preset(name: PresetName) -> Preset {
    match name {
        PresetName::Spike => Preset::Spike,
        PresetName::Stress => Preset::Stress,
        PresetName::AntiBot => Preset::AntiBot,
        PresetName::Idempotency => Preset::Idempotency,
        PresetName::Twenty => Preset::Twenty,
    }
}

fn route(name: RouteName) -> Route {
    match name {
        RouteName::Native => Route::Native,
        RouteName::Orders => Route::CompatOrders,
        RouteName::Buy => Route::CompatBuy,
        RouteName::Purchase => Route::CompatPurchase,
    }
}
