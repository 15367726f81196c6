//! `RocksDB`'s options: durable first, then small, then fast.
//!
//! A write that was synced is never lost silently: a torn tail of the log is dropped (it can only
//! hold what nobody was told of), and any other damage stops the start.

use ::rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, DEFAULT_COLUMN_FAMILY_NAME, DataBlockIndexType, LogLevel, MergeOperands,
    Options, WriteBufferManager,
};

use crate::{EngineOptions, engine::add_to_counter, table::ColumnFamily};

/// The name is stored in the files: it must not change.
const MERGE_OPERATOR: &str = "kv.add.i64";

/// From here on the lock-free cache is worth its table.
const LOCK_FREE_CACHE_BYTES_MIN: u64 = 256 << 20;

/// The options of the database and of each family.
pub(super) fn all(
    families: &[ColumnFamily],
    options: &EngineOptions,
    create: bool,
) -> (Options, Vec<ColumnFamilyDescriptor>) {
    let bytes = to_usize(options.memory_bytes);
    let cache = if options.memory_bytes < LOCK_FREE_CACHE_BYTES_MIN {
        Cache::new_lru_cache(bytes)
    } else {
        Cache::new_hyper_clock_cache(bytes, 0)
    };
    // RocksDB insists on a default family. It stays empty, but unless it is as small as the others
    // its memtable's size is what must be free on a full disk before writes go on.
    let default = (families.iter().all(|family| family.name != DEFAULT_COLUMN_FAMILY_NAME))
        .then_some(ColumnFamily {
            name: DEFAULT_COLUMN_FAMILY_NAME,
            index: u8::MAX,
            block_size_bytes: 4096,
            dense: false,
            point_lookups: false,
        });
    let descriptors = families
        .iter()
        .chain(&default)
        .map(|family| {
            let family_options = family_options(family, options, &cache);
            ColumnFamilyDescriptor::new(family.name, family_options)
        })
        .collect();
    (database_options(options, create, cache), descriptors)
}

fn database_options(options: &EngineOptions, create: bool, cache: Cache) -> Options {
    let mut database = Options::default();
    database.create_if_missing(create);
    database.create_missing_column_families(true);

    // Durability.
    database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    database.set_track_and_verify_wals_in_manifest(true);
    database.set_paranoid_checks(true);
    database.set_manual_wal_flush(false);
    database.set_max_total_wal_size(options.wal_bytes_max);

    // Memory: the memtables are charged to the block cache, so one number bounds both.
    let unflushed = to_usize(options.unflushed_bytes_max);
    let manager = WriteBufferManager::new_write_buffer_manager_with_cache(unflushed, false, cache);
    database.set_write_buffer_manager(&manager);
    database.set_max_open_files(i32::from(options.open_files_max));

    // Background work, spread so that it does not come in bursts.
    database.set_max_background_jobs(i32::from(options.background_jobs));
    database.set_bytes_per_sync(1 << 20);
    database.set_wal_bytes_per_sync(512 << 10);

    // An idle server is silent.
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database.set_log_level(LogLevel::Warn);
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(1 << 20);
    database
}

fn family_options(family: &ColumnFamily, options: &EngineOptions, cache: &Cache) -> Options {
    let mut rows = Options::default();
    let memtable = (options.unflushed_bytes_max / 4).clamp(2 << 20, 64 << 20);
    rows.set_write_buffer_size(to_usize(memtable));
    // A dozen families have a first block each, also when idle.
    rows.set_arena_block_size(if memtable < (8 << 20) { 32 << 10 } else { 128 << 10 });
    rows.set_level_compaction_dynamic_level_bytes(true);
    rows.set_target_file_size_base(32 << 20);
    rows.set_max_bytes_for_level_base(memtable.saturating_mul(4).max(64 << 20));
    rows.set_compression_type(DBCompressionType::Lz4);
    if family.dense {
        rows.set_bottommost_compression_type(DBCompressionType::Zstd);
        // Window and strategy are zstd's own for the level; a dictionary of 16 KiB per file.
        rows.set_bottommost_compression_options(-14, 3, 0, 16 << 10, true);
        rows.set_bottommost_zstd_max_train_bytes(1 << 20, true);
    }
    rows.set_merge_operator_associative(MERGE_OPERATOR, add);
    rows.set_block_based_table_factory(&table_options(family, cache));
    rows
}

fn table_options(family: &ColumnFamily, cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_format_version(6);
    table.set_block_size(family.block_size_bytes);
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_optimize_filters_for_memory(true);
    if family.point_lookups {
        table.set_bloom_filter(14.0, false);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_data_block_hash_ratio(0.75);
    } else {
        // Bloom where files are young and hot, ribbon (smaller, slower to build) below.
        table.set_hybrid_ribbon_filter(10.0, 1);
    }
    table
}

fn add(_: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut sum = existing.map(<[u8]>::to_vec);
    for operand in operands {
        let delta = i64::from_le_bytes(operand.try_into().ok()?);
        sum = Some(add_to_counter(sum.as_deref(), delta));
    }
    sum
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
