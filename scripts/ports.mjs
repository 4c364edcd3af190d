// Prints a base port such that all the ports the demo derives from it are free on loopback.
// Usage: node scripts/ports.mjs BASE fixed|search OFFSET...   Each offset is tried over TCP and UDP.
import { createServer } from "node:net";
import { createSocket } from "node:dgram";

const HOST = "127.0.0.1";
const STEP = 1000;
const HIGHEST = 30_000; // below Linux's ephemeral ports (32768 up), which come and go

const [first, mode, ...offsets] = process.argv.slice(2);

function bindsTcp(port) {
    return new Promise((resolve) => {
        const server = createServer();
        server.once("error", () => resolve(false));
        server.listen(port, HOST, () => server.close(() => resolve(true)));
    });
}

function bindsUdp(port) {
    return new Promise((resolve) => {
        const socket = createSocket("udp4");
        socket.once("error", () => socket.close(() => resolve(false)));
        socket.bind(port, HOST, () => socket.close(() => resolve(true)));
    });
}

async function taken(base) {
    for (const offset of offsets) {
        const port = base + Number(offset);
        if (!(await bindsTcp(port)) || !(await bindsUdp(port))) return port;
    }
    return null;
}

if (!/^\d+$/.test(first) || Number(first) < 1024 || Number(first) > HIGHEST) {
    console.error(`error: PORT must be a number from 1024 to ${HIGHEST}, not '${first}'`);
    process.exit(1);
}
for (let base = Number(first); base <= HIGHEST; base += STEP) {
    const port = await taken(base);
    if (port === null) {
        console.log(base);
        process.exit(0);
    }
    if (mode === "fixed") {
        console.error(`error: port ${port} is taken; choose another with PORT=n (the demo uses n and some up to n + 303)`);
        process.exit(1);
    }
    console.error(`port ${port} is taken; trying from ${base + STEP}`);
}
console.error("error: found no free ports");
process.exit(1);
