//! `flash-moe plan`: will a model run here, and how fast, before it is loaded or downloaded.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::EngineOptions;
use engine::synth::{PRESETS, Preset};
use engine::system::human_bytes;
use hub::{Wanted, decimal_bytes};
use lab::forecast::{Budget, Forecast, ForecastOptions, Target, forecast};

use crate::args::{PlanArgs, Usage};
use crate::model::Lookup;
use crate::{demo, download, output};

pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let (target, disk_dir) = target(args)?;
    let options = ForecastOptions {
        prompt_tokens: args.prompt_tokens,
        disk_dir: args.disk_path.clone().unwrap_or(disk_dir),
        probe_file_bytes: args.probe_size,
    };
    let load = EngineOptions { parallel: Some(args.parallel), ..super::options(&args.load) };
    let found = forecast(&target, &load, &options, &mut |what| output::note(what))?;
    let mut stdout = io::stdout().lock();
    match args.json {
        true => {
            serde_json::to_writer(&mut stdout, &found).map_err(io::Error::from)?;
            writeln!(stdout)?;
        }
        false => {
            if args.details {
                print(&mut stdout, &found)?;
                writeln!(stdout)?;
            }
            for line in output::wrapped(&sentence(&found)) {
                writeln!(stdout, "{line}")?;
            }
            if found.download_bytes.is_some() && found.fits {
                stdout.flush()?;
                output::note(&format!("get it with: flash-moe pull {}", found.model));
            }
        }
    }
    match &found.reason {
        Some(reason) => anyhow::bail!("{reason}"),
        None => Ok(()),
    }
}

/// What a newcomer wants to know.
fn sentence(found: &Forecast) -> String {
    let formats = found.formats.get("experts").or_else(|| found.formats.get("dense"));
    let formats: Vec<&str> = formats.into_iter().flatten().map(String::as_str).collect();
    let name = format!("{} at {}", found.model, formats.join(" and "));
    let budget = human_bytes(found.memory_budget_bytes);
    let Some(asked) = &found.asked else {
        let least = human_bytes(found.least_memory_bytes);
        return format!("{name} does not fit into {budget} of memory; it needs at least {least}.");
    };
    let rate = asked.typical.total_tokens_per_s;
    let disk = match (found.disk_needed_bytes.map(human_bytes), found.disk_free_bytes.map(human_bytes)) {
        (Some(needed), Some(free)) => format!("it needs {needed} of disk, {free} are free"),
        (Some(needed), None) => format!("it needs {needed} of disk"),
        (None, _) => "it is on this machine already".into(),
    };
    let disk = download_of(found).unwrap_or(disk);
    if !found.fits {
        return format!("{name} does not fit on this disk: {disk}.");
    }
    // More memory is spoken of where it is there and makes a difference.
    let more = found.budgets.iter().find(|budget| {
        let faster = budget.typical.total_tokens_per_s > 1.2 * rate;
        budget.memory_bytes > asked.memory_bytes && faster && !budget.beyond_free_memory
    });
    let more = more.map_or_else(String::new, |more| {
        let (memory, rate) = (human_bytes(more.memory_bytes), tokens_per_s(more.typical.total_tokens_per_s));
        format!(" {memory} would give {rate};")
    });
    format!("{name} will run here in {budget} at about {} tokens/s;{more} {disk}.", tokens_per_s(rate))
}

/// The download of a model on a hub, in the units that hubs and sellers of disks have.
fn download_of(found: &Forecast) -> Option<String> {
    let (all, needed) = (found.download_bytes?, found.disk_needed_bytes.unwrap_or_default());
    let part = match needed < all {
        true => format!("{} of its {} are left to download", decimal_bytes(needed), decimal_bytes(all)),
        false => format!("the download is {}", decimal_bytes(all)),
    };
    let free = found.disk_free_bytes.map(|free| format!(", {} of disk are free", decimal_bytes(free)));
    Some(part + &free.unwrap_or_default())
}

/// A forecast is no better than two digits.
fn tokens_per_s(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// What lies on the disk goes before a preset of the same name, that before the beginning of a model's
/// name, and a model that is not here may be on a hub.
fn target(args: &PlanArgs) -> anyhow::Result<(Target, PathBuf)> {
    let name = args.model.given();
    // A link to nothing is a damaged model, not a preset.
    let exists = Path::new(name).symlink_metadata().is_ok();
    if let Some(preset) = Preset::find(name).filter(|_| !exists) {
        let tiers = args.quant.over(preset.tiers(args.quant.experts()));
        return Ok((Target::Preset(preset, tiers), demo::cache_dir()));
    }
    let path = match args.model.look_up()? {
        Lookup::Here(path) => path,
        Lookup::Absent(absent) => {
            if let Some(Wanted::Repo(name)) = &absent.wanted {
                let (remote, dir) = download::remote(name)?;
                return Ok((Target::Remote(remote), dir));
            }
            let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            anyhow::bail!("{:#}; presets are {}", absent.error(), known.join(", "));
        }
    };
    if let Some(option) = args.quant.given().first().filter(|_| path.exists()) {
        let what = format!("{option} is for presets; {name} has its formats already: leave it out");
        return Err(Usage(what).into());
    }
    Ok((Target::Model(path), demo::cache_dir()))
}

fn print(out: &mut impl Write, found: &Forecast) -> io::Result<()> {
    let place = if found.on_disk { "on this machine" } else { "not here yet" };
    writeln!(out, "{}: {}, {} layers, {place}", found.model, found.architecture, found.layers)?;
    let formats: Vec<String> = found
        .formats
        .iter()
        .map(|(tier, formats)| format!("{tier} {}", formats.iter().cloned().collect::<Vec<_>>().join(" ")))
        .collect();
    writeln!(out, "formats    {}", formats.join(" · "))?;
    let lossy = output::lossy(&found.lossy);
    let (used, all) = (found.experts_per_token, found.experts_per_layer);
    match all {
        0 => writeln!(out, "experts    none: every token needs all weights · lossy: {lossy}")?,
        _ => writeln!(
            out,
            "experts    {used} of {all} a token and layer, the model's own number · lossy: {lossy}"
        )?,
    }
    writeln!(
        out,
        "weights    dense {} (always in memory) · experts {}, {} each · {} of experts a token",
        human_bytes(found.dense_bytes),
        human_bytes(found.experts_bytes),
        human_bytes(found.bytes_per_expert),
        human_bytes(found.expert_bytes_touched_per_token as u64),
    )?;
    print_fit(out, found)?;
    print_machine(out, found)?;
    print_budgets(out, found)
}

fn print_fit(out: &mut impl Write, found: &Forecast) -> io::Result<()> {
    let (budget, least) = (human_bytes(found.memory_budget_bytes), human_bytes(found.least_memory_bytes));
    let Some(plan) = &found.plan else {
        return writeln!(out, "memory     does not fit: {budget} given, at least {least} needed\n");
    };
    writeln!(
        out,
        "memory     fits: {budget} given, at least {least} needed\n           \
         process {} · dense {} · state {} for {} tokens (kv {}) · chunk of {} tokens {} · {} of {} experts {}\n",
        human_bytes(plan.process_bytes),
        human_bytes(plan.dense_bytes),
        human_bytes(plan.state_bytes),
        plan.ctx,
        found.kv,
        plan.chunk_tokens,
        human_bytes(plan.scratch_bytes),
        plan.slots,
        plan.expert_count,
        human_bytes(plan.slots as u64 * plan.slot_bytes),
    )
}

fn print_machine(out: &mut impl Write, found: &Forecast) -> io::Result<()> {
    let machine = &found.machine;
    let rate = |bytes: f64| format!("{}/s", human_bytes(bytes as u64));
    let bursts: Vec<String> = machine
        .drive_bursts_s
        .iter()
        .map(|(records, seconds)| format!("{records} in {:.2} ms", 1e3 * seconds))
        .collect();
    writeln!(
        out,
        "drive      {} at {} records of {} in flight, {} while memory is read too; at once: {} (measured on {})",
        rate(machine.drive_bytes_per_s),
        machine.drive_depth,
        human_bytes(machine.drive_record_bytes),
        rate(machine.drive_bytes_per_s_computing),
        bursts.join(", "),
        machine.drive_measured_on,
    )?;
    writeln!(
        out,
        "memory     {} with {} threads ({}): at least {:.2} ms a token for its {}",
        rate(machine.memory_bytes_per_s),
        machine.threads,
        machine.isa,
        1e3 * found.memory_time_s,
        human_bytes((found.dense_bytes_per_token + found.expert_bytes_touched_per_token) as u64),
    )?;
    writeln!(
        out,
        "compute    {:.2} ms a pass: dense {:.2}, head {:.2}, shared experts {:.2}, routed experts {:.2}\n",
        1e3 * machine.compute_s(),
        1e3 * machine.dense_compute_s,
        1e3 * machine.head_compute_s,
        1e3 * machine.shared_compute_s,
        1e3 * machine.expert_compute_s,
    )
}

fn print_budgets(out: &mut impl Write, found: &Forecast) -> io::Result<()> {
    if found.parallel > 1 {
        writeln!(
            out,
            "streams    {} decode together; tokens/s are those of all. With a prompt beside them a pass takes at most {:.2} s{}",
            found.parallel,
            found.pass_time_max_s,
            match found.pass_time_least_s {
                Some(least) if least > found.pass_time_max_s => format!(", but needs {least:.2} s here"),
                _ => String::new(),
            }
        )?;
    }
    writeln!(out, "{:28} | {:^33} | {:^33}", "", "real text", "every expert as likely")?;
    writeln!(
        out,
        "{:>11} {:>8} {:>7} | {:>6} {:>12} {:>13} | {:>6} {:>12} {:>13}",
        "memory", "slots", "", "hits", "read/token", "tokens/s", "hits", "read/token", "tokens/s"
    )?;
    let mut line = |budget: &Budget, mark: &str| {
        let (typical, uniform) = (&budget.typical, &budget.uniform);
        writeln!(
            out,
            "{:>11} {:>8} {mark:>7} | {:>4.0} % {:>12} {:>13.2} | {:>4.0} % {:>12} {:>13.2}{}",
            human_bytes(budget.memory_bytes),
            budget.slots,
            100.0 * typical.hit_rate,
            human_bytes(typical.expert_bytes_per_token as u64),
            typical.total_tokens_per_s,
            100.0 * uniform.hit_rate,
            human_bytes(uniform.expert_bytes_per_token as u64),
            uniform.total_tokens_per_s,
            if budget.beyond_free_memory { "  more than is free here" } else { "" },
        )
    };
    for budget in &found.budgets {
        line(budget, "")?;
    }
    if let Some(asked) = &found.asked {
        line(asked, "<= this")?;
    }
    if let Some(knee) = found.knee_memory_bytes {
        writeln!(
            out,
            "\nknee       {}: beyond it twice the slots gain less than a tenth (real text)",
            human_bytes(knee)
        )?;
    }
    if let Some(rate) = found.prefill_tokens_per_s {
        writeln!(
            out,
            "prefill    {rate:.1} tokens/s for a prompt of {}; first token after {:.1} s",
            found.prompt_tokens,
            found.prompt_tokens as f64 / rate.max(1e-9)
        )?;
    }
    Ok(())
}
