//! `query`: the same questions to the same flows, `ezscale query` beside `nfdump -R`.
//!
//! Both are whole commands, from start to end, over files in the page cache: each question is asked once before it is
//! timed, and then as often as told, of which the median counts. The answers must be equal, number by number, or the
//! measurement fails. `ezscale` is asked twice: of segments as they were collected, which is what the newest hour is, and of
//! the sorted files that every earlier hour becomes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use collector::simulate::encode::SimProtocol;
use serde::Serialize;

use crate::measure::{Load, Outcome, Scratch, run};
use crate::report::{Report, millions, progress};
use crate::side::{Ezscale, Side, bytes_under, output_of};

/// Rows of a ranking.
const TOP: usize = 10;
/// When flows were lost while storing, it is tried again at half the rate, so often.
const STORE_TRIES: u32 = 3;
/// The host that is asked for has at most so many flows: a page for somebody who looks into a complaint.
const HOST_FLOWS_MAX: u64 = 5_000;

/// What `query` is told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct QueryArgs {
    /// Flows to store and ask for
    #[arg(long, default_value_t = 50_000_000)]
    pub(crate) stored_flows: u64,
    /// Flows a second while storing
    #[arg(long, default_value_t = 500_000)]
    pub(crate) store_rate: u64,
    /// Times each question is timed
    #[arg(long, default_value_t = 3)]
    pub(crate) times: usize,
}

/// One question and how long each took to answer it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) question: &'static str,
    /// Of segments.
    pub(crate) collected_seconds: Vec<f64>,
    /// Of sorted files.
    pub(crate) sorted_seconds: Vec<f64>,
    pub(crate) nfdump_seconds: Vec<f64>,
    pub(crate) collected_faster: f64,
    pub(crate) sorted_faster: f64,
}

/// Everything `query` measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Queries {
    pub(crate) ezscale: Outcome,
    pub(crate) nfdump: Outcome,
    /// How long sorting took, and what the tables then held on disk.
    pub(crate) sort_seconds: f64,
    pub(crate) sorted_bytes: u64,
    pub(crate) rows: Vec<Row>,
}

/// A number by a name, such as bytes by address: what both sides must agree on.
type Answer = BTreeMap<String, u64>;

struct Question {
    title: &'static str,
    sql: String,
    nfdump: Vec<String>,
    read_ezscale: fn(&str) -> anyhow::Result<Answer>,
    read_nfdump: fn(&str) -> anyhow::Result<Answer>,
}

pub(crate) fn run_all(args: &QueryArgs, ezscale: &Ezscale, base: &Path) -> anyhow::Result<Queries> {
    let ezscale_folder = Scratch::new(base, "query-ezscale")?;
    let nfdump_folder = Scratch::new(base, "query-nfdump")?;
    let stored_by_ezscale = store(args, Side::Ezscale, ezscale, ezscale_folder.path())?;
    let stored_by_nfdump = store(args, Side::Nfdump, ezscale, nfdump_folder.path())?;
    let data_dir = ezscale_folder.path().join("data");

    let questions = questions(&ask_for_host(ezscale, &data_dir)?);
    let mut answers = Vec::new();
    for question in &questions {
        progress(format_args!("asking nfdump for {}", question.title));
        let ask = || {
            let mut command = Command::new("nfdump");
            command.arg("-R").arg(nfdump_folder.path().join("flows"));
            command.args(&question.nfdump);
            command
        };
        let answer = (question.read_nfdump)(&output_of(ask())?)?;
        answers.push((answer, time(args.times, ask)?));
    }
    let ask_ezscale = |question: &Question, answer: &Answer| {
        progress(format_args!("asking ezscale for {}", question.title));
        let ask = || {
            let mut command = Command::new(&ezscale.binary);
            command.args(["query", &question.sql, "--format", "csv", "--log", "warn", "--data-dir"]);
            command.arg(&data_dir);
            command
        };
        let own = (question.read_ezscale)(&output_of(ask())?)?;
        if own != *answer || own.is_empty() {
            bail!("{}: ezscale answers {own:?}, nfdump {answer:?}", question.title);
        }
        time(args.times, ask)
    };
    let mut collected = Vec::new();
    for (question, (answer, _)) in questions.iter().zip(&answers) {
        collected.push(ask_ezscale(question, answer)?);
    }
    progress("sorting what ezscale has stored");
    let started = Instant::now();
    ezscale.run(&data_dir, &["storage", "compact", "--unfinished"])?;
    let sort_seconds = started.elapsed().as_secs_f64();
    ezscale.run(&data_dir, &["storage", "vacuum", "--grace-seconds", "0"])?;
    let sorted_bytes = bytes_under(&data_dir.join("tables/flows"))?;
    let mut rows = Vec::new();
    for ((question, (answer, nfdump_seconds)), collected_seconds) in questions.iter().zip(answers).zip(collected) {
        let sorted_seconds = ask_ezscale(question, &answer)?;
        let times_faster = |seconds: &[f64]| median(&nfdump_seconds) / median(seconds);
        rows.push(Row {
            question: question.title,
            collected_faster: times_faster(&collected_seconds),
            sorted_faster: times_faster(&sorted_seconds),
            collected_seconds,
            sorted_seconds,
            nfdump_seconds,
        });
    }
    let queries = Queries {
        ezscale: stored_by_ezscale,
        nfdump: stored_by_nfdump,
        sort_seconds,
        sorted_bytes,
        rows,
    };
    print(&queries);
    Ok(queries)
}

fn questions(host: &str) -> Vec<Question> {
    let ranking = |statistic: &str| -> Vec<String> {
        let top = TOP.to_string();
        ["-s", &format!("{statistic}/bytes"), "-n", &top, "-o", "csv", "-N"]
            .map(str::to_owned)
            .to_vec()
    };
    let talkers = |column: &str| {
        format!(
            "SELECT addr_text({column}) AS name, bytes FROM \
             (SELECT {column}, sum(bytes * sampling_rate) AS bytes FROM flows GROUP BY {column} \
             ORDER BY bytes DESC LIMIT {TOP}) AS top"
        )
    };
    vec![
        Question {
            title: "top 10 sources by bytes",
            sql: talkers("src_addr"),
            nfdump: ranking("srcip"),
            read_ezscale: ezscale_ranking,
            read_nfdump: nfdump_ranking,
        },
        Question {
            title: "top 10 destinations by bytes",
            sql: talkers("dst_addr"),
            nfdump: ranking("dstip"),
            read_ezscale: ezscale_ranking,
            read_nfdump: nfdump_ranking,
        },
        Question {
            title: "top 10 AS by bytes, either way",
            sql: format!(
                "SELECT name, sum(bytes) AS bytes FROM \
                 (SELECT src_as AS name, sum(bytes * sampling_rate) AS bytes FROM flows GROUP BY src_as \
                 UNION ALL SELECT dst_as, sum(bytes * sampling_rate) FROM flows GROUP BY dst_as) AS sides \
                 GROUP BY name ORDER BY bytes DESC LIMIT {TOP}"
            ),
            nfdump: ranking("as"),
            read_ezscale: ezscale_ranking,
            read_nfdump: nfdump_ranking,
        },
        Question {
            title: "every flow of one host",
            sql: format!(
                "SELECT start_at, end_at, addr_text(src_addr) AS src, addr_text(dst_addr) AS dst, src_port, dst_port, \
                 ip_protocol, packets * sampling_rate AS packets, bytes * sampling_rate AS bytes FROM flows \
                 WHERE src_addr = addr('{host}') OR dst_addr = addr('{host}')"
            ),
            nfdump: vec!["-o".to_owned(), "csv".to_owned(), format!("host {host}")],
            read_ezscale: ezscale_flows,
            read_nfdump: nfdump_flows,
        },
    ]
}

/// Stores the flows, without loss.
fn store(args: &QueryArgs, side: Side, ezscale: &Ezscale, folder: &Path) -> anyhow::Result<Outcome> {
    let mut rate = args.store_rate;
    for _ in 0..STORE_TRIES {
        let load = Load {
            side,
            protocol: SimProtocol::Ipfix,
            exporters: 100,
            rate,
            flows: args.stored_flows,
        };
        progress(format_args!("storing {} flows in {side}", millions(load.flows as f64)));
        crate::side::remove(folder)?;
        std::fs::create_dir_all(folder)?;
        let outcome = run(&load, ezscale, folder)?;
        progress(crate::collect::line(&outcome));
        if outcome.lost() == 0 {
            return Ok(outcome);
        }
        rate /= 2;
    }
    bail!(
        "{side} cannot store {} flows without loss at {rate} flows/s or more",
        args.stored_flows
    )
}

/// One of our hosts with enough flows to be worth asking for.
fn ask_for_host(ezscale: &Ezscale, data_dir: &Path) -> anyhow::Result<String> {
    let sql = format!(
        "SELECT addr_text(src_addr) AS host FROM \
         (SELECT src_addr, count(*) AS flows FROM flows WHERE in_prefix(src_addr, '10.0.0.0/8') GROUP BY src_addr) AS hosts \
         WHERE flows <= {HOST_FLOWS_MAX} ORDER BY flows DESC, src_addr LIMIT 1"
    );
    let answer = ezscale.run(data_dir, &["query", &sql, "--format", "csv"])?;
    let host = answer.lines().nth(1).context("no host has so few flows")?;
    Ok(host.trim_matches('"').to_owned())
}

fn time(times: usize, command: impl Fn() -> Command) -> anyhow::Result<Vec<f64>> {
    let mut seconds = Vec::new();
    for _ in 0..times.max(1) {
        let started = Instant::now();
        output_of(command())?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn number(text: Option<&str>) -> anyhow::Result<u64> {
    let text = text.context("an answer has too few columns")?.trim();
    text.parse().with_context(|| format!("{text:?} is no number"))
}

/// Lines of name and bytes, after a header.
fn ezscale_ranking(text: &str) -> anyhow::Result<Answer> {
    let mut answer = Answer::new();
    for line in text.lines().skip(1) {
        let (name, bytes) = line.rsplit_once(',').context("an answer has one column")?;
        answer.insert(name.trim_matches('"').to_owned(), number(Some(bytes))?);
    }
    Ok(answer)
}

/// `ts,te,td,pr,val,fl,flP,pkt,pktP,byt,…`
fn nfdump_ranking(text: &str) -> anyhow::Result<Answer> {
    let mut answer = Answer::new();
    for line in text.lines().skip(1).take_while(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let name = fields.get(4).context("a line of nfdump has no value")?;
        answer.insert(name.trim().to_owned(), number(fields.get(9).copied())?);
    }
    Ok(answer)
}

fn flows_answer(rows: impl Iterator<Item = anyhow::Result<(u64, u64)>>) -> anyhow::Result<Answer> {
    let (mut flows, mut packets, mut bytes) = (0, 0, 0);
    for row in rows {
        let row = row?;
        flows += 1;
        packets += row.0;
        bytes += row.1;
    }
    let named = [("flows", flows), ("packets", packets), ("bytes", bytes)];
    Ok(named
        .into_iter()
        .map(|(name, number)| (name.to_owned(), number))
        .collect())
}

fn ezscale_flows(text: &str) -> anyhow::Result<Answer> {
    flows_answer(text.lines().skip(1).map(|line| {
        let mut fields = line.rsplit(',');
        let bytes = number(fields.next())?;
        Ok((number(fields.next())?, bytes))
    }))
}

/// `ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,…`, up to the summary.
fn nfdump_flows(text: &str) -> anyhow::Result<Answer> {
    let lines = text.lines().skip(1).take_while(|line| !line.starts_with("Summary"));
    flows_answer(lines.map(|line| {
        let mut fields = line.split(',').skip(11);
        let packets = number(fields.next())?;
        Ok((packets, number(fields.next())?))
    }))
}

fn print(queries: &Queries) {
    let headers = [
        "QUESTION",
        "NFDUMP -R",
        "AS COLLECTED",
        "TIMES FASTER",
        "SORTED",
        "TIMES FASTER",
    ];
    let mut report = Report::new(1, &headers);
    for row in &queries.rows {
        report.row(&[
            row.question.to_owned(),
            format!("{:.3} s", median(&row.nfdump_seconds)),
            format!("{:.3} s", median(&row.collected_seconds)),
            format!("{:.1}", row.collected_faster),
            format!("{:.3} s", median(&row.sorted_seconds)),
            format!("{:.1}", row.sorted_faster),
        ]);
    }
    let flows = queries.ezscale.flows_stored as f64;
    report.print(&format!(
        "Questions to {} flows: {:.0} MB stored by nfcapd -z; by ezscale {:.0} MB as collected, {:.0} MB ({:.1} B/flow) after \
         {:.0} s of sorting; warm page cache, equal answers",
        millions(flows),
        queries.nfdump.disk_bytes as f64 / 1e6,
        queries.ezscale.disk_bytes as f64 / 1e6,
        queries.sorted_bytes as f64 / 1e6,
        queries.sorted_bytes as f64 / flows,
        queries.sort_seconds,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_are_read_alike() {
        let ours = "name,bytes\n10.0.0.1,5\n2001:db8::1,3\n";
        let theirs = "ts,te,td,pr,val,fl,flP,pkt,pktP,byt,bytP,pps,bps,bpp\n\
            2026-01-01 00:00:00,2026-01-01 00:00:01,1.0,any,10.0.0.1,1,0.1,1,0.1,5,0.1,1,1,1\n\
            2026-01-01 00:00:00,2026-01-01 00:00:01,1.0,any,2001:db8::1,1,0.1,1,0.1,3,0.1,1,1,1\n\
            \nSummary\nflows,bytes,packets,avg_bps,avg_pps,avg_bpp\n9,9,9,9,9,9\n";
        assert_eq!(ezscale_ranking(ours).unwrap(), nfdump_ranking(theirs).unwrap());
        let ours = "start_at,end_at,src,dst,src_port,dst_port,ip_protocol,packets,bytes\na,b,c,d,1,2,6,10,1000\na,b,c,d,1,2,6,1,60\n";
        let theirs = "ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,opkt\na,b,0.1,c,d,1,2,TCP,.,0,0,10,1000,0\n\
            a,b,0.1,c,d,1,2,TCP,.,0,0,1,60,0\nSummary\nflows,bytes\n2,1060\n";
        let answer = ezscale_flows(ours).unwrap();
        assert_eq!(answer, nfdump_flows(theirs).unwrap());
        assert_eq!(answer["flows"], 2);
        assert_eq!(answer["bytes"], 1_060);
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }
}
