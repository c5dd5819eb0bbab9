-- Who applied a migration, and what exactly. checksum: SHA-256 of its SQL, hex. Those of before this one get the sums of the
-- program that applies this one. program: the version of ezscale that applied it; empty where it was applied before this one.
ALTER TABLE schema_migrations ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
ALTER TABLE schema_migrations ADD COLUMN program TEXT NOT NULL DEFAULT '';
