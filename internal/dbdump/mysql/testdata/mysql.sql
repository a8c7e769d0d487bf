-- What only MySQL has.
SET NAMES utf8mb4;
SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone='+00:00', foreign_key_checks=0;
USE shop;
CREATE TABLE documents (id INT NOT NULL PRIMARY KEY, j JSON, k JSON DEFAULT (JSON_ARRAY(1, 'x')), n INT GENERATED ALWAYS AS (JSON_EXTRACT(j, '$.n')) VIRTUAL, KEY (n));
INSERT INTO documents (id, j) VALUES
 (1, '{"n": 1, "a": [1, 2.5, null, true, "ä\\n😀"], "nested": {"x": {}}}'), (2, NULL), (3, 'null'), (4, '"it''s \\\\ \\"quoted\\""'), (5, '18446744073709551615'), (6, '1e100'), (7, '[]'),
 (8, JSON_OBJECT('n', 8, 'd', CAST('1.10' AS DECIMAL(10,2)), 'date', CAST('2020-02-03' AS DATE), 'time', CAST('11:12:13.5' AS TIME(1)), 'dt', CAST('2020-02-03 04:05:06.789' AS DATETIME(3)))),
 (9, CAST(CAST('12.340' AS DECIMAL(10,3)) AS JSON)), (10, CAST(CAST('2020-02-03' AS DATE) AS JSON)), (11, CAST(x'00FF27' AS JSON)), (12, JSON_ARRAY(CAST(x'0102' AS JSON), CAST(b'101' AS JSON))), (13, JSON_ARRAY(ST_GeomFromText('POINT(1 2)'))), (14, '-0.0'), (15, '0.30000000000000004');
CREATE TABLE hidden (a INT, secret INT INVISIBLE DEFAULT 7, c VARCHAR(5) INVISIBLE, PRIMARY KEY (a), KEY ik (secret) INVISIBLE, KEY desc_key (secret DESC, a), KEY fn ((secret + 1)), KEY fc ((CAST(c AS CHAR(3) CHARACTER SET utf8mb4))));
INSERT INTO hidden (a, secret, c) VALUES (1, 42, 'x'), (2, NULL, NULL);
CREATE TABLE multi_valued (id INT PRIMARY KEY, j JSON, KEY mv ((CAST(j->'$.tags' AS UNSIGNED ARRAY))), KEY plain (id));
INSERT INTO multi_valued VALUES (1, '{"tags": [1, 2, 3]}'), (2, '{"tags": []}');
CREATE TABLE vectors (id INT PRIMARY KEY, v VECTOR(3), w VECTOR);
INSERT INTO vectors VALUES (1, TO_VECTOR('[1.5,-0.0,3.0000001]'), TO_VECTOR('[0.1]')), (2, NULL, NULL);
CREATE TABLE srid_table (id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, g GEOMETRY, SPATIAL KEY (p));
INSERT INTO srid_table VALUES (1, ST_GeomFromText('POINT(10 20)', 4326), ST_GeomFromText('POINT(1 2)', 3857));
CREATE TABLE expr_default (a INT PRIMARY KEY, b VARCHAR(40) DEFAULT (CONCAT('x,', UUID())), c INT DEFAULT (a + 1), d BLOB DEFAULT (x'00FF'), e VARCHAR(10) DEFAULT (_utf8mb4'😀'));
INSERT INTO expr_default (a, b) VALUES (1, 'fixed');
CREATE TABLE not_enforced (a INT, CONSTRAINT late CHECK (a > 0) NOT ENFORCED, b INT);
INSERT INTO not_enforced (a) VALUES (-1);
CREATE TABLE gipk_like (my_row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY, v INT);
INSERT INTO gipk_like (v) VALUES (5), (6);
CREATE TABLESPACE `ts;1` ADD DATAFILE 'ts1.ibd' ENGINE=InnoDB;
CREATE TABLE in_tablespace (a INT PRIMARY KEY) TABLESPACE `ts;1`;
INSERT INTO in_tablespace VALUES (1);
CREATE TABLE in_system (a INT) TABLESPACE innodb_system;
INSERT INTO in_system VALUES (1);
CREATE SPATIAL REFERENCE SYSTEM 990001 NAME 'custom ''1''' DEFINITION 'GEOGCS["custom",DATUM["World Geodetic System 1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.017453292519943278,AUTHORITY["EPSG","9122"]],AXIS["Lat",NORTH],AXIS["Lon",EAST]]';
CREATE TABLE custom_srs (id INT PRIMARY KEY, p POINT SRID 990001);
INSERT INTO custom_srs VALUES (1, ST_GeomFromText('POINT(5 6)', 990001));
CREATE TABLE histogram (a INT, b INT);
INSERT INTO histogram VALUES (1,1),(2,2);
SET GLOBAL log_bin_trust_function_creators=ON;
CREATE FUNCTION not_deterministic() RETURNS DOUBLE RETURN RAND();
SET GLOBAL log_bin_trust_function_creators=OFF;
CREATE ROLE reader, nested, `r;3`@localhost;
GRANT SELECT ON shop.* TO reader;
GRANT reader TO nested;
GRANT nested TO app@'%';
SET DEFAULT ROLE nested TO app@'%';
GRANT reader TO locked@localhost WITH ADMIN OPTION;
GRANT BACKUP_ADMIN ON *.* TO app@'%' WITH GRANT OPTION;
CREATE USER attr@localhost IDENTIFIED BY 'x' FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 2 PASSWORD HISTORY 5 COMMENT 'it''s; "quoted"';
CREATE SERVER `srv;1` FOREIGN DATA WRAPPER mysql OPTIONS (HOST '192.0.2.1', DATABASE 'd', USER 'u', PASSWORD 'p;''x', PORT 3307);
DROP USER ghost@localhost;
