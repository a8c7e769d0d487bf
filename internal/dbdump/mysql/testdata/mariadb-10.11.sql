-- What MariaDB has had since 10.6 to 10.11.
SET NAMES utf8mb4;
SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone='+00:00', foreign_key_checks=0;
USE shop;
CREATE TABLE addresses (a INT, u UUID DEFAULT UUID(), i4 INET4, PRIMARY KEY (a), KEY (u), UNIQUE KEY (i4));
INSERT INTO addresses VALUES (1, '123e4567-e89b-12d3-a456-426655440000', '192.0.2.1'), (2, NULL, NULL), (3, DEFAULT, '0.0.0.0');
CREATE TABLE uuid_key (u UUID NOT NULL PRIMARY KEY, v INT);
INSERT INTO uuid_key VALUES ('ffffffff-e89b-12d3-a456-426655440000', 1), ('00000000-e89b-12d3-a456-426655440001', 2);
CREATE TABLE ignored_key (a INT, b INT, KEY ka (a) IGNORED, KEY kd (b DESC));
CREATE TABLE uca (a VARCHAR(20) COLLATE uca1400_as_cs, b VARCHAR(20) CHARACTER SET utf16 COLLATE uca1400_swedish_ai_ci, UNIQUE KEY (a)) COLLATE utf8mb4_uca1400_nopad_ai_ci;
INSERT INTO uca VALUES ('e', 'ö'), ('é', '😀'), ('E', NULL);
GRANT SELECT ON shop.addresses TO PUBLIC;
GRANT SELECT ON `Ünï code;%.db`.* TO PUBLIC;
GRANT reader TO PUBLIC;
