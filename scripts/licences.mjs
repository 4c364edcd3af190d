// Checks the licences, sources and bans of deny.toml against the dependencies of Cargo.lock on Linux, for machines
// without cargo-deny. It trusts the licence that a package declares, where cargo-deny reads the licence texts as well.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const deny = readFileSync("deny.toml", "utf8");
const list = (pattern) => [...deny.match(pattern)[1].matchAll(/"([^"]+)"/g)].map((match) => match[1]);
const allowed = new Set(list(/^allow = \[([^\]]*)\]/m));
const registries = new Set(list(/^allow-registry = \[([^\]]*)\]/m).map((url) => `registry+${url}`));
const targets = list(/^targets = \[([^\]]*)\]/m);
const banned = new Set([...deny.matchAll(/crate = "([^"]+)"/g)].map((match) => match[1]));

/** Whether a licence expression (SPDX, or the older "MIT/Apache-2.0") can be met with allowed licences; notes those it uses. */
function satisfied(expression, used) {
    const tokens = expression.replaceAll("/", " OR ").match(/\(|\)|[^\s()]+/g);
    const peek = (word) => tokens[0] === word && tokens.shift();
    const any = () => {
        let holds = all();
        while (peek("OR")) holds = all() || holds;
        return holds;
    };
    const all = () => {
        let holds = one();
        while (peek("AND")) holds = one() && holds;
        return holds;
    };
    const one = () => {
        if (peek("(")) {
            const holds = any();
            peek(")");
            return holds;
        }
        let name = tokens.shift();
        if (peek("WITH")) name += ` WITH ${tokens.shift()}`;
        if (allowed.has(name)) used.add(name);
        return allowed.has(name);
    };
    return any() && tokens.length === 0;
}

const cargo = (...words) => execFileSync("cargo", [...words, "--locked"], { maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"] }).toString();

// `cargo metadata` knows licences and sources, but also lists what no enabled feature asks for; `cargo tree` does not.
const inTree = new Set();
for (const target of targets) {
    const tree = cargo("tree", "--workspace", "--target", target, "--edges", "all", "--prefix", "none", "--format", "{p}");
    for (const line of tree.split("\n")) inTree.add(line.split(" ").slice(0, 2).join(" "));
}
const packages = JSON.parse(cargo("metadata", "--format-version", "1")).packages.filter(({ name, version }) =>
    inTree.has(`${name} v${version}`),
);

const problems = [];
const used = new Set();
let foreign = 0;
for (const { name, version, license, source } of packages) {
    if (banned.has(name)) problems.push(`${name} ${version} is banned`);
    if (source === null) continue; // ours
    foreign += 1;
    if (!registries.has(source)) problems.push(`${name} ${version} comes from ${source}`);
    if (!license || !satisfied(license, used)) problems.push(`${name} ${version}: the licence ${license ?? "(none given)"} is not allowed`);
}
for (const name of allowed) if (!used.has(name)) problems.push(`deny.toml allows ${name}, which nothing uses`);

if (problems.length > 0) {
    console.error(problems.join("\n"));
    process.exit(1);
}
console.log(`${foreign} packages: licences, sources and bans are in order`);
