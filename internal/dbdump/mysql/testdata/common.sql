-- What MariaDB and MySQL have in common. Every statement runs on one connection, as root.
SET NAMES utf8mb4;
SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone='+00:00', foreign_key_checks=0;
CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE DATABASE `Ünï code;%.db` CHARACTER SET latin1 COLLATE latin1_german2_ci;
CREATE DATABASE empty_db CHARACTER SET ascii;
USE shop;

-- numbers
CREATE TABLE numbers (
  id INT NOT NULL PRIMARY KEY,
  t TINYINT, tu TINYINT UNSIGNED, s SMALLINT ZEROFILL, m MEDIUMINT, b BIGINT, bu BIGINT UNSIGNED,
  d DECIMAL(65,30), d2 DECIMAL(10,0) UNSIGNED, f FLOAT, fp FLOAT(7,3), db DOUBLE, dbp DOUBLE(20,5), b1 BIT(1), b64 BIT(64), bo BOOL,
  y YEAR
);
INSERT INTO numbers VALUES
 (0, -128, 255, 7, -8388608, -9223372036854775808, 18446744073709551615, 12345678901234567890123456789012345.123456789012345678901234567890, 9999999999, 3.4028234e38, 1234.567, 1.7976931348623157e308, 123456789012345.12345, b'1', b'1111111111111111111111111111111111111111111111111111111111111111', TRUE, 1901),
 (1, 127, 0, 65535, 8388607, 9223372036854775807, 0, -0.000000000000000000000000000001, 0, 1.17549435e-38, -0.001, 2.2250738585072014e-308, -0.00001, b'0', b'0', FALSE, 2155),
 (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (3, 0, 0, 0, 0, 0, 0, 0, 0, -0e0, -0e0, -0e0, -0e0, b'0', b'100000000000000000000000000000001', 0, 0),
 (4, 1, 1, 1, 1, 1, 1, 0.1, 1, 16777217, 0.1, 0.1, 0.1, b'1', b'1010', 1, 2026),
 (5, 1, 1, 1, 1, 1, 1, 1e-30, 1, 0.1, 0.2, 0.30000000000000004, 0.3, b'1', b'11111111', 1, 1999),
 (6, 1, 1, 1, 1, 1, 1, 1e-30, 1, 123456789, 0.2, 5e-324, 0.3, b'1', b'0010000000100000', 1, 1970),
 (7, 1, 1, 1, 1, 1, 1, 1e-30, 1, 1e-45, 0.2, -5e-324, 0.3, b'1', b'0101110000100111', 1, 1970);
-- floats that look alike in six digits, as a key
CREATE TABLE float_key (f FLOAT NOT NULL, d DOUBLE NOT NULL, v INT, PRIMARY KEY (f, d));
INSERT INTO float_key VALUES (1.0000001, 1, 1), (1.0000002, 1, 2), (1, 1, 3), (0.1, 0.1, 4), (0.10000000149011612, 0.2, 5), (16777216, 0, 6), (16777218, 0, 7), (-1e-40, 0, 8);

-- texts
CREATE TABLE texts (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  u4 VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
  l1 VARCHAR(200) CHARACTER SET latin1, sj VARCHAR(200) CHARACTER SET sjis, gb VARCHAR(200) CHARACTER SET gbk, b5 VARCHAR(200) CHARACTER SET big5,
  ej VARCHAR(200) CHARACTER SET eucjpms, u2 VARCHAR(200) CHARACTER SET ucs2, u16 VARCHAR(200) CHARACTER SET utf16, u16l VARCHAR(200) CHARACTER SET utf16le, u32 VARCHAR(200) CHARACTER SET utf32,
  c CHAR(5) CHARACTER SET utf8mb4, bi BINARY(5), vb VARBINARY(300), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB, tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT,
  KEY (u4(20)), KEY (l1), UNIQUE KEY `uq;(` (vb(100), id)
) CHARACTER SET utf8mb4;
INSERT INTO texts (id, u4, l1, sj, gb, b5, ej, u2, u16, u16l, u32, c, bi, vb, tb, bl, mb, lb, tt, tx, mt, lt) VALUES
 (0, 'id zero', 'é', 'ソ表能', '囧\\', '功蓋', '日本', '漢字', '𝄞漢', '𝄞漢', '𝄞漢', 'ab   ', 'ab', 0x00, '', '', '', '', '', '', '', ''),
 (10, 'tab\tnewline\nreturn\rzero\0sub\Zbs\bquote''dq"back\\slash\\N', 'a\\''b', 'ソ\\''', '運', '許', '〜', 'a\n\t', 'b\\', 'c\\', 'd\t', '', '', 0x000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F2027225C7F80FEFF, 0x5C4E, 0x5C, 0x0A, 0x09, '\\N', 'NULL', '\\', ''),
 (11, '😀🏳️‍🌈', NULL, NULL, NULL, NULL, NULL, NULL, '😀', '😀', '😀', '😀', 0x0000000000, 0xFF, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (12, '', '', '', '', '', '', '', '', '', '', '', 0xFFFFFFFFFF, '', 0x00, REPEAT(0x00FF0A5C27, 1000), REPEAT(0x5C00, 40000), REPEAT('x\ty\n', 300000), 'a', REPEAT('ä', 3000), REPEAT('😀\\', 20000), REPEAT('long ', 100000)),
 (4294967, 'trailing space ', 'x ', 'x ', 'x ', 'x ', 'x ', 'x ', 'x ', 'x ', 'x ', 'x', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ');
INSERT INTO texts (id, l1) VALUES (13, _latin1 0x80818283848586878889A0FFDF), (14, _latin1 0x00010203);

-- enum and set, with members that text protocols like to lose
CREATE TABLE choices (
  id INT NOT NULL PRIMARY KEY,
  e ENUM('a','B','it''s','x,y','','😀','back\\slash','tab	') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT '😀',
  s SET('a','b','😀','with space','it''s') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT 'a,😀',
  el ENUM('ä','ö') CHARACTER SET latin1, es ENUM('ソ','表') CHARACTER SET sjis, eu ENUM('漢','字') CHARACTER SET ucs2, dflt VARCHAR(20) DEFAULT '😀\\''\n'
) CHARACTER SET utf8mb4;
INSERT INTO choices VALUES (1,'a','a','ä','ソ','漢','x'),(2,'it''s','a,b,😀','ö','表','字',''),(3,'😀','😀',NULL,NULL,NULL,NULL),(4,'','','ä','表','字',DEFAULT),(5,'back\\slash','it''s,with space','ö','ソ','漢','y'),(6,NULL,NULL,NULL,NULL,NULL,DEFAULT);
INSERT INTO choices (id) VALUES (7);

-- dates: zeros, parts, fractions, the edges
CREATE TABLE times (
  id INT NOT NULL PRIMARY KEY, d DATE, dt DATETIME, dt6 DATETIME(6), ts TIMESTAMP NULL, ts3 TIMESTAMP(3) NULL, t TIME, t6 TIME(6), y YEAR,
  cr TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, cr6 DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)
);
INSERT INTO times VALUES
 (1,'0000-00-00','0000-00-00 00:00:00','0000-00-00 00:00:00.000000','0000-00-00 00:00:00','0000-00-00 00:00:00','-838:59:59','-838:59:59.000000',0,'0000-00-00 00:00:00','2020-01-01 00:00:00.000001'),
 (2,'2024-00-00','2024-02-31 00:00:00','9999-12-31 23:59:59.999999','1970-01-01 00:00:01','2038-01-19 03:14:07.999','838:59:59','838:59:58.999999',2155,'2038-01-19 03:14:07','2020-01-01'),
 (3,'1000-01-01','2024-02-31 12:00:00','2024-03-10 02:30:00.123456','2024-03-31 01:30:00','2024-10-27 01:30:00.5','-00:00:01','-00:00:00.000001',1901,'2024-10-27 00:30:00','2021-01-01'),
 (4,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2024-10-27 01:30:00',NULL);
CREATE TABLE ts_without_default (id INT PRIMARY KEY, a TIMESTAMP NULL, b TIMESTAMP NOT NULL DEFAULT '2000-01-01 00:00:00', c DATETIME NOT NULL);
INSERT INTO ts_without_default VALUES (1, NULL, '2001-01-01', '2002-01-01');

-- geometry
CREATE TABLE shapes (id INT NOT NULL PRIMARY KEY, g GEOMETRY, p POINT NOT NULL, l LINESTRING, pg POLYGON, mp MULTIPOINT, gc GEOMETRYCOLLECTION, SPATIAL KEY (p));
INSERT INTO shapes VALUES (1, ST_GeomFromText('POINT(1 2)', 0), ST_GeomFromText('POINT(0.1 -0.2)'), ST_GeomFromText('LINESTRING(0 0,1 1,2 2)'), ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 10,0 0))'), ST_GeomFromText('MULTIPOINT(1 1,2 2)'), ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')),
 (2, NULL, ST_GeomFromText('POINT(1e300 -1e-300)'), NULL, NULL, NULL, NULL);

-- generated columns, checks, expressions as defaults
CREATE TABLE made (
  `primary` INT NOT NULL, `key` INT, v INT GENERATED ALWAYS AS (`primary` + `key`) VIRTUAL, st VARCHAR(64) GENERATED ALWAYS AS (CONCAT('a,b(', `key`, ')')) STORED,
  u CHAR(36), n INT DEFAULT 5 COMMENT 'comment with ; and '' and \\ and `KEY` (x), y',
  PRIMARY KEY (`primary`), KEY v (v), UNIQUE KEY st (st), CONSTRAINT `n,positive` CHECK (n > 0)
) COMMENT='table; with '' quote and \\ backslash';
INSERT INTO made (`primary`, `key`, n) VALUES (1, 10, 1), (2, NULL, 2), (3, 30, DEFAULT);
CREATE TABLE all_generated_but_one (a INT, b INT GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO all_generated_but_one (a) VALUES (1), (1), (NULL);

-- keys of every kind, and none
CREATE TABLE no_key (a INT, b VARCHAR(10));
INSERT INTO no_key VALUES (1,'x'),(1,'x'),(NULL,NULL),(2,''),(1,'x');
CREATE TABLE unique_only (a INT NOT NULL, b VARCHAR(20) COLLATE utf8mb4_bin, UNIQUE KEY ua (a), UNIQUE KEY (b), KEY kb (b(3)));
INSERT INTO unique_only VALUES (2,'two'),(1,'one'),(3,NULL),(4,NULL);
CREATE TABLE text_key (k VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL, v INT, PRIMARY KEY (k));
INSERT INTO text_key VALUES ('ä',1),('b',2),('Z',3),('a''b',4),('a\\b',5),('',6),('😀',7);
CREATE TABLE binary_key (k VARBINARY(16) NOT NULL, d DATETIME(6) NOT NULL, v INT, PRIMARY KEY (k, d));
INSERT INTO binary_key VALUES (0x00,'2020-01-01 00:00:00.1',1),(0x00FF5C27,'2020-01-01',2),(0xFF,'0000-00-00',3),('','2020-01-01',4);
CREATE TABLE ai_second (g INT NOT NULL, n INT NOT NULL AUTO_INCREMENT, x INT, PRIMARY KEY (g, n), KEY (x), KEY n (n)) AUTO_INCREMENT=1000;
INSERT INTO ai_second (g, n, x) VALUES (1, 5, 1), (2, 0, 2);
CREATE TABLE ai_gone (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT=9223372036854775000;
CREATE TABLE ft (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, a TEXT, b VARCHAR(100), FULLTEXT KEY fa (a), FULLTEXT KEY fab (a, b), KEY (b));
INSERT INTO ft (a, b) VALUES ('quick brown fox', 'jumps'), ('lazy dog', NULL);
CREATE TABLE myisam_table (id INT NOT NULL AUTO_INCREMENT, b INT, t TEXT, PRIMARY KEY (b, id), KEY (id), FULLTEXT KEY (t)) ENGINE=MyISAM CHARACTER SET latin1;
INSERT INTO myisam_table (b, t) VALUES (1,'müsli'),(1,'b'),(2,'c');
CREATE TABLE memory_table (id INT PRIMARY KEY, v VARCHAR(5), KEY (v) USING BTREE) ENGINE=MEMORY;
INSERT INTO memory_table VALUES (1,'a'),(2,NULL);
CREATE TABLE archive_table (id INT, v TEXT) ENGINE=ARCHIVE;
INSERT INTO archive_table VALUES (1,'a'),(2,NULL),(1,'a');
CREATE TABLE csv_table (id INT NOT NULL, v VARCHAR(50) NOT NULL) ENGINE=CSV;
INSERT INTO csv_table VALUES (1,'a,"b"\\'),(2,'');
CREATE TABLE compressed (id INT PRIMARY KEY, v TEXT) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8;
INSERT INTO compressed VALUES (1, REPEAT('abc', 1000));
CREATE TABLE `weird ``name;%/.` (`col ``;%` INT, `sel,ect` VARCHAR(3), KEY `key ``(` (`col ``;%`));
INSERT INTO `weird ``name;%/.` VALUES (1,'a'),(2,'b');
CREATE TABLE `Case` (a INT);
CREATE TABLE `case` (b INT);
INSERT INTO `Case` VALUES (1);
INSERT INTO `case` VALUES (2),(3);

-- foreign keys in circles and across databases
CREATE TABLE fk_a (id INT NOT NULL PRIMARY KEY, b_id INT, self INT, KEY (b_id), CONSTRAINT fk_a_b FOREIGN KEY (b_id) REFERENCES fk_b (id) ON DELETE SET NULL ON UPDATE CASCADE, CONSTRAINT fk_a_self FOREIGN KEY (self) REFERENCES fk_a (id));
CREATE TABLE fk_b (id INT NOT NULL PRIMARY KEY, a_id INT, CONSTRAINT fk_b_a FOREIGN KEY (a_id) REFERENCES fk_a (id));
INSERT INTO fk_a VALUES (1, 1, 2), (2, NULL, 1);
INSERT INTO fk_b VALUES (1, 2), (2, 1);
CREATE TABLE `Ünï code;%.db`.other (id INT NOT NULL PRIMARY KEY, a_id INT, u CHAR(10) DEFAULT 'ß', CONSTRAINT other_a FOREIGN KEY (a_id) REFERENCES shop.fk_a (id));
INSERT INTO `Ünï code;%.db`.other VALUES (1, 1, 'ß'), (2, NULL, 'x');

-- partitions
CREATE TABLE part_range (id INT NOT NULL, d DATE NOT NULL, v VARCHAR(10), PRIMARY KEY (id, d), KEY (v)) PARTITION BY RANGE (YEAR(d)) (PARTITION p0 VALUES LESS THAN (2000) COMMENT 'old; ones', PARTITION p1 VALUES LESS THAN (2020), PARTITION pmax VALUES LESS THAN MAXVALUE);
INSERT INTO part_range VALUES (1,'1999-01-01','a'),(2,'2010-01-01','b'),(3,'2030-01-01','c'),(4,'1980-01-01',NULL);
CREATE TABLE part_hash (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 4;
INSERT INTO part_hash (v) VALUES (1),(2),(3),(4),(5),(6);
CREATE TABLE part_list (c VARCHAR(5) NOT NULL, v INT) PARTITION BY LIST COLUMNS (c) (PARTITION a VALUES IN ('x','y'), PARTITION b VALUES IN ('it''s','z'));
INSERT INTO part_list VALUES ('x',1),('it''s',2),('z',3);
CREATE TABLE part_sub (id INT NOT NULL, d DATE NOT NULL) PARTITION BY RANGE (TO_DAYS(d)) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (730000), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO part_sub VALUES (1,'1990-01-01'),(2,'2020-01-01'),(3,'2020-01-01');
CREATE TABLE part_key (a INT NOT NULL, b INT, UNIQUE KEY (a)) PARTITION BY KEY () PARTITIONS 3;
INSERT INTO part_key VALUES (1,1),(2,2),(3,3);

-- accounts
CREATE USER app@'%' IDENTIFIED BY 'pa;ss''w\\ord';
CREATE USER `o'dd;user`@`10.0.%` IDENTIFIED BY 'x' REQUIRE SSL;
CREATE USER locked@localhost IDENTIFIED BY 'x' ACCOUNT LOCK;
CREATE USER expired@localhost IDENTIFIED BY 'x' PASSWORD EXPIRE;
CREATE USER interval_u@localhost IDENTIFIED BY 'x' PASSWORD EXPIRE INTERVAL 90 DAY;
CREATE USER limited@'%' IDENTIFIED BY 'x' WITH MAX_QUERIES_PER_HOUR 10 MAX_USER_CONNECTIONS 3;
CREATE USER definer_u@localhost IDENTIFIED BY 'x';
GRANT SELECT, INSERT ON shop.* TO app@'%';
GRANT SELECT (id, f), UPDATE (f) ON shop.numbers TO app@'%';
GRANT SELECT ON `sho\_p%`.* TO `o'dd;user`@`10.0.%` WITH GRANT OPTION;
GRANT SELECT ON shop.no_key TO definer_u@localhost;
GRANT SELECT, EXECUTE, TRIGGER, EVENT ON shop.* TO definer_u@localhost;
GRANT PROXY ON app@'%' TO limited@'%';

-- code, with its own sql_mode, character set, definer
SET sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT,STRICT_ALL_TABLES';
DELIMITER //
CREATE DEFINER=definer_u@localhost FUNCTION f_add(a INT, b INT) RETURNS INT DETERMINISTIC SQL SECURITY INVOKER COMMENT 'adds; it''s'
BEGIN
  DECLARE "x;y" INT DEFAULT 1;
  -- a comment; with a semicolon
  RETURN a + b;
END//
SET sql_mode='NO_BACKSLASH_ESCAPES'//
CREATE FUNCTION f_path() RETURNS VARCHAR(20) DETERMINISTIC NO SQL COMMENT 'c:\path\new' RETURN 'c:\temp\'//
CREATE TABLE backslash_comment (id INT COMMENT 'c:\path', v VARCHAR(10) DEFAULT 'a\b') COMMENT='d:\dir\'//
INSERT INTO backslash_comment (id) VALUES (1)//
SET sql_mode=''//
CREATE PROCEDURE p_out(IN a INT, OUT b INT, INOUT c VARCHAR(100) CHARACTER SET latin1) MODIFIES SQL DATA
BEGIN
  SET b = a; -- ;; &&
  SELECT ';;' INTO c;
END//
SET NAMES latin1//
CREATE PROCEDURE p_latin() SELECT 'ÃŸ'//
SET NAMES utf8mb4 COLLATE utf8mb4_bin//
CREATE TABLE audit (n INT NOT NULL AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100))//
CREATE DEFINER=definer_u@localhost TRIGGER numbers_bi BEFORE INSERT ON numbers FOR EACH ROW BEGIN SET NEW.t = COALESCE(NEW.t, 1); INSERT INTO audit (what) VALUES ('insert;1'); END//
CREATE TRIGGER numbers_bi2 BEFORE INSERT ON numbers FOR EACH ROW FOLLOWS numbers_bi INSERT INTO audit (what) VALUES ('insert;2')//
CREATE TRIGGER numbers_bi0 BEFORE INSERT ON numbers FOR EACH ROW PRECEDES numbers_bi INSERT INTO audit (what) VALUES ('insert;0')//
SET sql_mode='ANSI_QUOTES'//
CREATE TRIGGER "weird trigger;" AFTER UPDATE ON "weird `name;%/." FOR EACH ROW INSERT INTO audit (what) VALUES ('😀')//
SET sql_mode='NO_ZERO_DATE,STRICT_TRANS_TABLES', time_zone='-03:00'//
CREATE EVENT ev_on ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 03:00:00' ENDS '2035-01-01 00:00:00' ON COMPLETION PRESERVE ENABLE COMMENT 'it''s; ENABLE' DO BEGIN INSERT INTO shop.audit (what) VALUES (';;'); SELECT 1; /* ;; */ END//
SET time_zone='+05:30'//
CREATE DEFINER=definer_u@localhost EVENT ev_off ON SCHEDULE AT '2035-05-05 05:05:05' DISABLE DO DELETE FROM shop.audit WHERE n < 0//
CREATE EVENT ev_month ON SCHEDULE EVERY '1:30' HOUR_MINUTE STARTS '2034-01-01 00:00:00' DO SELECT 1//
DELIMITER ;
SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone='+00:00';

-- views
CREATE VIEW z_base AS SELECT id, t, 'it''s; 😀' AS txt FROM numbers WHERE id < 100;
CREATE DEFINER=definer_u@localhost SQL SECURITY INVOKER VIEW a_top AS SELECT z.id AS `i;d`, z.txt FROM z_base z JOIN no_key `al ias` ON z.id = `al ias`.a;
CREATE ALGORITHM=MERGE VIEW check_base AS SELECT a, b FROM no_key WHERE a < 100 WITH LOCAL CHECK OPTION;
CREATE VIEW check_top AS SELECT a, b FROM check_base WHERE a > 0 WITH CASCADED CHECK OPTION;
CREATE ALGORITHM=TEMPTABLE VIEW with_function AS SELECT f_add(1, 2) AS three, COUNT(*) AS n FROM no_key;
CREATE DEFINER=definer_u@localhost VIEW definer_view AS SELECT a FROM no_key;
CREATE VIEW over_definer AS SELECT a FROM definer_view;
GRANT SELECT ON shop.a_top TO app@'%';
GRANT EXECUTE ON FUNCTION shop.f_add TO app@'%';
GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE shop.p_out TO app@'%';
-- broken ones: no table, no column, no function, no definer, and a view on a broken view
CREATE TABLE goes (a INT, b INT);
CREATE TABLE shrinks (a INT, gone INT);
INSERT INTO shrinks VALUES (1, 1);
CREATE FUNCTION f_goes(a INT, b INT) RETURNS INT DETERMINISTIC RETURN 1;
CREATE USER ghost@localhost;
GRANT SELECT ON shop.* TO ghost@localhost;
CREATE VIEW broken_table AS SELECT g.a, g.b + 1 AS b1 FROM goes g WHERE g.b > 0;
CREATE VIEW broken_column AS SELECT s.a, s.gone FROM shrinks s;
CREATE VIEW broken_function AS SELECT f_goes(1, 2) AS x;
CREATE DEFINER=ghost@localhost VIEW ghost_view AS SELECT a FROM no_key;
CREATE VIEW on_ghost AS SELECT a FROM ghost_view;
CREATE VIEW on_broken AS SELECT a, b1 FROM broken_table;
DROP TABLE goes;
ALTER TABLE shrinks DROP COLUMN gone;
DROP FUNCTION f_goes;
