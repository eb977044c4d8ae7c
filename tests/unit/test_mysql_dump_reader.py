# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes of a dump of mysqldump is read right, whatever the values are and wherever the pieces end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql import statements
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.literals import Row, Table
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.rows import read_dump
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DatabaseError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import RELEASE_LINES

REAL = Path(__file__).resolve().parents[3] / "shared" / "papermerge-data" / "3.2-mysql"
LAST = b"-- Dump completed on 2026-11-22 13:42:15\n"
TABLE = b"""
DROP TABLE IF EXISTS `co``re`;
/*!40101 SET character_set_client = utf8mb4 */;
CREATE TABLE `co``re` (
  `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'a; `b` (''c'')',
  `na``me` varchar(1024) DEFAULT NULL,
  `text` longtext NOT NULL,
  `hash` varbinary(64) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `other` (`na``me`)
) ENGINE=InnoDB COMMENT='it''s; (the) end';
LOCK TABLES `co``re` WRITE;
/*!40000 ALTER TABLE `co``re` DISABLE KEYS */;
"""
NASTY = [
    "",
    "'",
    "''",
    "\\",
    "\\'",
    "\\\\",
    "');",
    "),(",
    "NULL",
    "0x41",
    "-- Dump completed",
    "\n",
    "\0",
    "\x1a",
    "ä€😀",
    ",",
]
texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=20), max_size=5).map("".join).map(str.encode)
rows = st.tuples(st.integers(-9, 10**12), st.none() | texts, texts, st.none() | st.binary(max_size=40))

#: The statements that a trigger, a function, a view and an event make in a dump of MariaDB.
OBJECTS = rb"""
/*!50001 CREATE VIEW `seen` AS SELECT
 1 AS `id` */;
DELIMITER ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `co``re`
FOR EACH ROW BEGIN
-- don't; stop
SET @a = 1;
INSERT INTO `co``re` VALUES (1,'no row',"it's",NULL); # nor 'this
/* it's a comment ;; */
END */;;
DELIMITER ;
DELIMITER ;;
CREATE DEFINER=`root`@`localhost` FUNCTION `f`() RETURNS int(11)
BEGIN
SET @a = 1;
INSERT INTO `co``re` VALUES (2,'no row either','x',NULL);
return 1;
END ;;
DELIMITER ;
/*!50106 SET @save_time_zone= @@TIME_ZONE */ ;
DELIMITER ;;
/*!50106 CREATE*/ /*!50117 DEFINER=`root`@`localhost`*/ /*!50106 EVENT `e`
ON SCHEDULE EVERY 1 DAY DO delete from x */ ;;
DELIMITER ;
"""


def text_literal(value: bytes | None, doubled: bool) -> bytes:
    """What mysql_real_escape_string makes of a text; other programs double the quote."""
    if value is None:
        return b"NULL"
    for plain, escaped in ((b"\\", b"\\\\"), (b"\0", b"\\0"), (b"\n", b"\\n"), (b"\x1a", b"\\Z"), (b'"', b'\\"')):
        value = value.replace(plain, escaped)
    return b"'" + value.replace(b"'", b"''" if doubled else b"\\'") + b"'"


def row_literal(row: tuple[int, bytes | None, bytes, bytes | None], doubled: bool) -> bytes:
    number, name, text, digest = row
    binary = b"NULL" if digest is None else b"0x" + digest.hex().upper().encode() if digest else b"''"
    return b"(%d,%s,_utf8mb4 %s,%s)" % (number, text_literal(name, doubled), text_literal(text, doubled), binary)


def read(pieces: list[bytes], kept: Collection[str] = ()) -> tuple[statements.DumpReader, list[Row]]:
    found: list[Row] = []

    def store(_table: Table, _columns: tuple[str, ...], batch: list[Row]) -> None:
        found.extend(batch)

    reader = statements.DumpReader(kept, store)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader, found


@given(
    made=st.lists(rows, min_size=1, max_size=8),
    new_lines=st.booleans(),
    doubled=st.booleans(),
    objects=st.booleans(),
    piece=st.sampled_from([1, 7, 1000]),
    held=st.sampled_from([1, 40, 1 << 16]),
)
@settings(max_examples=300, deadline=None)
def test_rows_are_what_they_were_whatever_is_in_them(
    made: list[tuple[int, bytes | None, bytes, bytes | None]],
    new_lines: bool,
    doubled: bool,
    objects: bool,
    piece: int,
    held: int,
) -> None:
    between = b",\n" if new_lines else b","
    middle = len(made) // 2
    dump = b"/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump\n" + TABLE
    for group in (made[:middle], made[middle:]):
        if group:
            dump += b"INSERT INTO `co``re` VALUES" + (b"\n" if new_lines else b" ")
            dump += between.join(row_literal(row, doubled) for row in group) + b";\n"
    dump += b"UNLOCK TABLES;\n" + (OBJECTS if objects else b"") + LAST
    pieces = [dump[start : start + piece] for start in range(0, len(dump), piece)]
    with pytest.MonkeyPatch.context() as patch:
        # Small ones, so that rows are longer than what is held.
        patch.setattr(statements, "READ_BYTES", max(piece, held))
        patch.setattr(statements, "ROW_BYTES", held)
        reader, found = read(pieces, {"co`re"})
        counted, _none = read(pieces)
    assert found == [(str(row[0]).encode(), row[1], row[3]) for row in made], "the long column is not kept"
    assert reader.counts == counted.counts == {"co`re": len(made)}
    assert reader.objects == ({"view", "trigger", "routine", "event"} if objects else set())
    assert reader.passed == len(dump)


def test_a_dump_that_was_cut_off_anywhere_is_refused() -> None:
    dump = TABLE + b"INSERT INTO `co``re` VALUES (1,'x','y',0x00),(2,NULL,'z',NULL);\n" + OBJECTS + LAST
    whole = dump.index(b"-- Dump completed") + len(b"-- Dump completed")
    for end in range(whole):
        with pytest.raises(DatabaseError, match=r"cut off|cannot be read"):
            read([dump[:end]])
    for end in range(whole, len(dump) + 1):
        assert read([dump[:end]])[0].counts == {"co`re": 2}
    with pytest.raises(DatabaseError, match="without its last line"):
        read([dump, b"INSERT INTO `co``re` VALUES (3,NULL,'z',NULL);\n"])


@pytest.mark.parametrize(
    "row", ["(1,'x','y',0x00", "(1,'x' 'y',NULL,NULL)", "(1,now(),'y',NULL)", "1,'x','y',NULL", "(1,'x',,NULL)", "()"]
)
def test_what_mysqldump_never_writes_is_refused(row: str) -> None:
    with pytest.raises(DatabaseError, match=r"cut off|cannot be read"):
        read([TABLE + b"INSERT INTO `co``re` VALUES " + row.encode() + b";\n" + LAST])


def test_rows_follow_the_columns_that_their_statement_names() -> None:
    dump = TABLE + b"INSERT INTO `co``re` (`hash`, `text`, `id`) VALUES (0x41,'long',7),(NULL,'long',8);\n" + LAST
    assert read([dump], {"co`re"})[1] == [(b"A", b"7"), (None, b"8")]


@pytest.mark.parametrize("words", ["USE `other`", "/*!40000 DROP DATABASE IF EXISTS `x`*/", "CREATE DATABASE `x`"])
def test_a_dump_that_leads_elsewhere_is_refused_before_it_gets_there(words: str) -> None:
    reader = statements.DumpReader(home=True)
    dump = TABLE + words.encode() + b";\nDROP TABLE `co``re`;\n" + LAST
    with pytest.raises(DatabaseError, match="another database"):
        for start in range(0, len(dump), 10):
            reader.feed(dump[start : start + 10])
            reader.flush()
            assert reader.passed <= dump.index(words.encode())
        reader.finish()


def test_the_kept_rows_answer_a_release_lines_queries() -> None:
    line = RELEASE_LINES["2.0"]
    dump = (
        b"CREATE TABLE `core_document` (\n  `basetreenode_ptr_id` int(11),\n  `file_name` varchar(1024),\n"
        b"  `version` int(11),\n  `page_count` int(11),\n  `text` longtext,\n"
        b"  PRIMARY KEY (`basetreenode_ptr_id`)\n);\n"
        b"CREATE TABLE `core_basetreenode` (\n  `id` int(11),\n  `user_id` int(11),\n  PRIMARY KEY (`id`)\n);\n"
        b"CREATE TABLE `django_migrations` (\n  `app` varchar(255),\n  `name` varchar(255)\n);\n"
        b"INSERT INTO `core_document` VALUES (10,'\xc3\xa4 \\'b\\'.pdf',2,1,'long'),(9,'\xff.pdf',0,1,'');\n"
        b"INSERT INTO `core_document` VALUES (3,NULL,0,0,'');\n"
        b"INSERT INTO `core_basetreenode` VALUES (10,1),(9,1),(3,1);\n" + LAST
    )
    with read_dump(iter([dump]), "the dump", line) as view:
        view.require_tables(line)
        assert view.row_counts(line) == {"core_document": 3, "core_basetreenode": 3}
        assert view.schema_marker(line) == "", "a table without rows can be asked as well"
        assert {row.path for row in view.expected_rows(line)} == {
            "docs/user_1/document_10/v2/ä 'b'.pdf".encode(),
            b"docs/user_1/document_9/\xff.pdf",
            None,
        }
        assert {row.key for row in view.rows_with_keys(line, ["9", "10", "11", "' or 1"])} == {"9", "10"}


def test_memory_does_not_grow_with_values_nor_with_their_number() -> None:
    program = """
import resource, sys
from ansible_collections.papermerge.backup.plugins.module_utils.database.mysql.rows import DumpedRows
rows = DumpedRows("the dump", {"t"})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def pieces():
    yield b"CREATE TABLE `t` (\\n  `id` int(11),\\n  `name` varchar(99),\\n  `text` longtext\\n);\\n"
    yield b"INSERT INTO `t` VALUES (0,'name','"
    for _ in range(1500):
        yield b"it\\\\'s a long text\\\\n" * 3500
    yield b"')"
    for number in range(0, 200000, 100):
        yield b"".join(b",(%d,'%064d','')" % (n, n) for n in range(number, number + 100))
    yield b";\\n-- Dump completed\\n"
for _piece in rows.passing(pieces()):
    pass
rows.finish()
assert rows.view.counts == {"t": 200001}
assert next(rows.view.rows("select count(*), max(length(name)) from t")) == (200001, 64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert int(run.stdout) < 16 << 10, "KiB, after 100 MB in one value and 15 MB of rows that are kept"


@pytest.mark.skipif(not REAL.is_dir(), reason="the data of real installs is not here")
def test_a_real_dump_has_the_rows_that_were_counted_when_it_was_made() -> None:
    names = {"users": "core_user", "tags": "core_tag", "groups": "auth_group"}
    names.update({name: "core_" + name[:-1] for name in ("folders", "documents", "pages")})
    names.update(nodes="core_basetreenode", document_versions="core_documentversion")
    lines = (REAL / "expected.txt").read_text(encoding="utf-8").splitlines()
    told = dict(line.split("=") for line in lines if "=" in line)
    reader, _rows = read([(REAL / "papermerge.sql").read_bytes()])
    assert {name: reader.counts[table] for name, table in names.items()} == {name: int(told[name]) for name in names}
