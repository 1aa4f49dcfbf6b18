// Echo on Node.js (libuv).
"use strict";

const net = require("node:net");

const version = `Node.js ${process.versions.node}, libuv ${process.versions.uv}`;
const [option, value] = process.argv.slice(2);

if (option === "--version") {
    console.log(version);
} else if (option === "--port") {
    const server = net.createServer({ noDelay: true }, (socket) => {
        socket.on("error", () => socket.destroy());
        socket.pipe(socket);
    });
    server.listen({ host: "127.0.0.1", port: Number(value), backlog: 4096 }, () => {
        console.log(`ready on port ${value}: ${version}`);
    });
} else {
    console.error("give --port N, or --version");
    process.exitCode = 2;
}
