//! A model of the journal: a list of blocks, of which those before the last sync are acknowledged.

use std::path::Path;

use proptest::prelude::*;
use schemas::address::Address;

use super::*;
use crate::decode::Datagram;

const ID: &str = "0123456789abcdef";

/// A datagram whose payload names it.
fn push(records: &mut RecordBuffer, name: u32, length: usize) {
    let mut payload = name.to_le_bytes().to_vec();
    payload.resize(4 + length, 0x5a);
    let datagram = Datagram {
        received_at_ms: i64::from(name),
        source: Address::from_v4(name.to_be_bytes()),
        source_port: name as u16,
        payload: &payload,
    };
    records.push_datagram(name as u8, &datagram);
}

/// Names of the datagrams read, each checked to be whole.
fn names(content: &SegmentContent) -> Vec<u32> {
    let mut names = Vec::new();
    for record in content.records() {
        let Record::Datagram { socket, datagram } = record else {
            panic!("only datagrams were written: {record:?}")
        };
        let name = u32::from_le_bytes(*datagram.payload.first_chunk().unwrap());
        assert_eq!((socket, datagram.source_port), (name as u8, name as u16));
        assert_eq!(datagram.received_at_ms, i64::from(name));
        assert_eq!(datagram.source, Address::from_v4(name.to_be_bytes()));
        assert!(datagram.payload[4..].iter().all(|byte| *byte == 0x5a));
        names.push(name);
    }
    names
}

struct Model {
    /// Names by block, and the length of the file after each block.
    blocks: Vec<(Vec<u32>, usize)>,
}

/// Writes blocks of the given payload lengths; answers what was written.
fn write(path: &Path, number: u64, lengths: &[Vec<usize>], close: bool) -> Model {
    let mut writer = SegmentWriter::new(path.to_owned(), ID, number, 7);
    let mut model = Model { blocks: Vec::new() };
    let mut name = 0;
    for block in lengths {
        let mut records = RecordBuffer::default();
        let mut names = Vec::new();
        for length in block {
            push(&mut records, name, *length);
            names.push(name);
            name += 1;
        }
        writer.append(records);
        writer.sync().unwrap();
        model.blocks.push((names, writer.size_bytes() as usize));
    }
    if close {
        writer.close().unwrap();
    }
    model
}

fn blocks() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(0usize..200, 1..5), 1..8)
}

proptest! {
    #[test]
    fn f1_what_a_crash_cut_off_is_ignored_and_the_rest_is_read_once(lengths in blocks(), cut in 0.0f64..=1.0, junk in prop::collection::vec(any::<u8>(), 0..64)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let model = write(&path, 3, &lengths, false);
        let whole = std::fs::read(&path).unwrap();
        let cut = (whole.len() as f64 * cut) as usize;
        let mut torn = whole[..cut].to_vec();
        torn.extend_from_slice(&junk);
        std::fs::write(&path, &torn).unwrap();
        let content = read_segment(&path, ID, 3).unwrap();
        let acknowledged: Vec<u32> = model
            .blocks
            .iter()
            .filter(|(_, end)| *end <= cut)
            .flat_map(|(names, _)| names.clone())
            .collect();
        prop_assert_eq!(names(&content), acknowledged);
        prop_assert!(!content.closed);
    }

    #[test]
    fn damage_in_the_middle_costs_its_own_block_only(lengths in blocks(), place in 0.0f64..1.0, flip in 1u8..) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let model = write(&path, 3, &lengths, true);
        let mut bytes = std::fs::read(&path).unwrap();
        let end_of_blocks = model.blocks.last().unwrap().1;
        let at = SEGMENT_HEADER_BYTES + ((end_of_blocks - SEGMENT_HEADER_BYTES) as f64 * place) as usize;
        bytes[at] ^= flip;
        std::fs::write(&path, &bytes).unwrap();
        let content = read_segment(&path, ID, 3).unwrap();
        let mut start = SEGMENT_HEADER_BYTES;
        let mut sound = Vec::new();
        for (names, end) in &model.blocks {
            if !(start..*end).contains(&at) {
                sound.extend_from_slice(names);
            }
            start = *end;
        }
        prop_assert_eq!(names(&content), sound);
        prop_assert_eq!(content.blocks_damaged, 1);
        prop_assert!(content.closed);
    }

    #[test]
    fn hostile_bytes_are_no_records(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        std::fs::write(&path, &bytes).unwrap();
        prop_assert_eq!(read_segment(&path, ID, 1).unwrap().records().count(), 0);
    }
}

#[test]
fn every_torn_length_of_a_segment_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let model = write(&path, 1, &[vec![3, 0], vec![10], vec![1, 1, 1]], true);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let content = read_segment(&path, ID, 1).unwrap();
        let expected: usize = model
            .blocks
            .iter()
            .filter(|(_, end)| *end <= cut)
            .map(|(names, _)| names.len())
            .sum();
        assert_eq!(names(&content).len(), expected, "cut at {cut}");
        assert_eq!(content.closed, cut == whole.len());
    }
}

/// Found by fuzzing.
#[test]
fn a_damaged_length_that_leads_to_a_later_block_hides_none_between() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let model = write(&path, 3, &[vec![10], vec![20], vec![30], vec![40]], true);
    let mut bytes = std::fs::read(&path).unwrap();
    let third_block = model.blocks[1].1;
    let length = (third_block - SEGMENT_HEADER_BYTES - BLOCK_HEADER_BYTES) as u32;
    bytes[SEGMENT_HEADER_BYTES + 4..SEGMENT_HEADER_BYTES + 8].copy_from_slice(&length.to_le_bytes());
    let content = read_segment_bytes(bytes, ID, 3);
    assert_eq!(names(&content), [1, 2, 3]);
    assert_eq!(content.blocks_damaged, 1);
    assert!(content.closed);
}

#[test]
fn a_block_inside_a_datagram_does_not_pass_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let inner_path = dir.path().join("inner");
    // The best a stranger can do: a whole segment written with another journal's id.
    let mut writer = SegmentWriter::new(inner_path.clone(), "ffffffffffffffff", 1, 7);
    let mut records = RecordBuffer::default();
    push(&mut records, 666, 10);
    writer.append(records);
    writer.close().unwrap();
    let forged = std::fs::read(&inner_path).unwrap();

    let path = dir.path().join("segment");
    let mut writer = SegmentWriter::new(path.clone(), ID, 1, 7);
    let mut records = RecordBuffer::default();
    records.push_datagram(
        0,
        &Datagram {
            received_at_ms: 0,
            source: Address::UNSPECIFIED,
            source_port: 0,
            payload: &forged,
        },
    );
    writer.append(records);
    let mut records = RecordBuffer::default();
    push(&mut records, 1, 10);
    writer.append(records);
    writer.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[SEGMENT_HEADER_BYTES + 4] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(names(&read_segment(&path, ID, 1).unwrap()), [1]);
}

#[test]
fn f1_a_failed_write_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("not-there-yet");
    let path = folder.join("segment");
    let mut writer = SegmentWriter::new(path.clone(), ID, 1, 7);
    let mut records = RecordBuffer::default();
    push(&mut records, 1, 10);
    writer.append(records);
    assert!(writer.sync().is_err());
    let mut records = RecordBuffer::default();
    push(&mut records, 2, 10);
    writer.append(records);
    assert!(writer.write().is_err());
    assert_eq!(writer.emptied().count(), 0, "what is not synced is kept");
    std::fs::create_dir(&folder).unwrap();
    writer.sync().unwrap();
    let emptied: Vec<RecordBuffer> = writer.emptied().collect();
    assert_eq!(emptied.len(), 2);
    assert!(emptied.iter().all(|buffer| buffer.is_empty() && buffer.capacity() > 0));
    writer.close().unwrap();
    assert_eq!(names(&read_segment(&path, ID, 1).unwrap()), [1, 2]);
}

#[test]
fn more_blocks_than_one_call_takes_are_written_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let mut writer = SegmentWriter::new(path.clone(), ID, 1, 7);
    let blocks = 700;
    for name in 0..blocks {
        let mut records = RecordBuffer::default();
        push(&mut records, name, 100);
        writer.append(records);
        if name == 300 {
            writer.write().unwrap();
            assert_eq!(writer.unwritten_bytes(), 0);
        }
    }
    writer.close().unwrap();
    assert_eq!(writer.emptied().count() as u32, blocks + 1, "and the end mark");
    assert_eq!(writer.size_bytes(), std::fs::metadata(&path).unwrap().len());
    let content = read_segment(&path, ID, 1).unwrap();
    assert!(content.closed);
    assert!(names(&content).into_iter().eq(0..blocks));
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let error = Journal::open(dir.path()).unwrap_err();
    let pid = std::process::id();
    assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
    let id = journal.id().to_owned();
    drop(journal);
    assert_eq!(Journal::open(dir.path()).unwrap().id(), id, "the id stays");
}

#[test]
fn whoever_asks_is_told_who_collects_and_is_no_collector() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(holder(dir.path()).unwrap(), None, "there is no journal");
    assert!(!dir.path().join("journal").exists(), "asking makes none");
    let journal = Journal::open(dir.path()).unwrap();
    let expected = format!(" (pid {})", std::process::id());
    assert_eq!(holder(dir.path()).unwrap(), Some(expected));
    drop(journal);
    assert_eq!(holder(dir.path()).unwrap(), None);
    Journal::open(dir.path()).unwrap();
}

/// Makes a segment one of another format, with a sound header.
fn set_format(path: &Path, format: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[7] = b'0' + format;
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn segments_of_a_newer_format_are_refused_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(found_formats(dir.path()).unwrap(), []);
    let journal = Journal::open(dir.path()).unwrap();
    std::fs::write(journal.dir().join("ID"), ID).unwrap();
    let path = journal.segment_path(1);
    write(&path, 1, &[vec![1], vec![2]], true);
    write(&journal.segment_path(2), 2, &[vec![1]], true);
    drop(journal);
    let known = u32::from(SEGMENT_FORMAT);
    set_format(&path, SEGMENT_FORMAT + 1);
    let newer = std::fs::read(&path).unwrap();
    let found: Vec<u32> = found_formats(dir.path()).unwrap().iter().map(|one| one.found).collect();
    assert_eq!(found, [known + 1, known]);
    for refused in [
        Journal::open(dir.path()).unwrap_err().to_string(),
        read_segment(&path, ID, 1).unwrap_err().to_string(),
    ] {
        let words = format!(
            "segment-0000000001.journal is a journal segment of format {}",
            known + 1
        );
        assert!(
            refused.contains(&words) && refused.contains("restore a backup"),
            "{refused}"
        );
    }
    assert_eq!(std::fs::read(&path).unwrap(), newer);

    // Of a digit that a disk changed nobody knows more than that it is damaged.
    set_format(&path, SEGMENT_FORMAT);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[7] += 1;
    std::fs::write(&path, bytes).unwrap();
    let content = read_segment(&path, ID, 1).unwrap();
    assert_eq!((names(&content).len(), content.blocks_damaged), (2, 1));
    assert_eq!(Journal::open(dir.path()).unwrap().segments().unwrap().len(), 2);
}

#[test]
fn segments_are_never_read_under_a_new_id() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    write(&journal.segment_path(1), 1, &[vec![1]], true);
    let id_path = journal.dir().join("ID");
    drop(journal);
    std::fs::remove_file(&id_path).unwrap();
    let error = Journal::open(dir.path()).unwrap_err();
    assert!(matches!(error, JournalError::MissingId { .. }), "{error}");
    std::fs::write(&id_path, "nonsense").unwrap();
    assert!(matches!(
        Journal::open(dir.path()).unwrap_err(),
        JournalError::BadId { .. }
    ));
    std::fs::write(&id_path, ID).unwrap();
    assert_eq!(Journal::open(dir.path()).unwrap().segments().unwrap().len(), 1);
}

#[test]
fn drops_are_records_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let mut writer = SegmentWriter::new(path.clone(), ID, 1, 7);
    let drops = Drops {
        at_ms: 5,
        kernel_dropped: 6,
        queue_dropped: 7,
    };
    let mut records = RecordBuffer::default();
    records.push_drops(3, &drops);
    push(&mut records, 1, 0);
    writer.append(records);
    writer.close().unwrap();
    let content = read_segment(&path, ID, 1).unwrap();
    let mut read = content.records();
    assert!(matches!(read.next(), Some(Record::Drops { socket: 3, drops: d }) if d == drops));
    assert!(matches!(read.next(), Some(Record::Datagram { .. })));
    assert!(read.next().is_none());
}
