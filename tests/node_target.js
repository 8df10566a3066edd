// SPDX-License-Identifier: GPL-2.0-only
//
// node's tls and https modules over 127.0.0.1, all connections on one thread, for the tests to
// trace.
//
// usage: node_target.js server|client|both CERT KEY TRUTH CONTACT
//        node_target.js endless CERT KEY TRUTH CONTACT
//        node_target.js https-server|https-client CERT KEY
//
// In: a certificate and its key, a line on stdin when to begin. Out: "ready" on stdout after the
// set-up, and TRUTH: "write FD HEX" or "read FD HEX" for each call that moved plaintext, "close FD"
// at the end of a connection. The server leaves its port in CONTACT. endless is both ends, says
// "running" when every connection has been used and goes on until another line. The https modes
// keep no truth (a relay does): the server says "listening PORT" and ends with its connections, the
// client's line on stdin is a port.
// It must never write a truth line that is not what node's tls took from, or gave to, this program.
'use strict';

const assert = require('assert');
const events = require('events');
const fs = require('fs');
const https = require('https');
const tls = require('tls');

const MAX_SECONDS = 120;
const CONNS = 101;
const MESSAGES = 11;
const ENDLESS_CONNS = 50;
const HTTPS_ROUNDS = 5;
const PEER = { client: 'server', server: 'client' };

const [mode, certFile, keyFile, truthFile, contact] = process.argv.slice(2);
const cert = fs.readFileSync(certFile);
const key = fs.readFileSync(keyFile);
const truth = [];
const endless = mode === 'endless';
let stopped = false;

// Names its connection; every byte depends on the message and on its position.
function payload(conn, side, number, size) {
	const out = Buffer.alloc(size);
	const name = `conn ${conn} ${side} message ${number}\n`;
	const start = out.write(name, 0, 'latin1');

	for (let at = start; at < size; at++)
		out[at] = conn * 31 + number * 131 + at * 7 + Math.floor(at / 251);
	return out;
}

function sizeOf(number) {
	return endless ? 100 : number % 4 === 3 ? 20000 : 200;
}

// One end of a connection: what goes through it is in the truth.
class End {
	constructor(socket, side, conn) {
		Object.assign(this, { socket, side, conn });
		this.fd = socket._handle.fd;
		assert(this.fd > 2, 'node does not say its fd');
		socket.setNoDelay();
		this.seen = Buffer.alloc(0);
		socket.on('data', (data) => {
			this.note('read', data);
			this.seen = Buffer.concat([this.seen, data]);
			socket.emit('more');
		});
	}

	note(way, data) {
		truth.push(`${way} ${this.fd} ${data.toString('hex')}\n`);
	}

	// The next write waits for this one, else node would make one call of both.
	send(number) {
		const data = payload(this.conn, this.side, number, sizeOf(number));

		this.note('write', data);
		return new Promise((done) => this.socket.write(data, done));
	}

	async take(size) {
		while (this.seen.length < size)
			await events.once(this.socket, 'more');
		const data = this.seen.subarray(0, size);
		this.seen = this.seen.subarray(size);
		return data;
	}

	async receive(number) {
		const data = await this.take(sizeOf(number));

		if (this.conn === null)
			this.conn = Number(data.toString('latin1').split(' ')[1]);
		assert(data.equals(payload(this.conn, PEER[this.side], number, data.length)),
			`connection ${this.conn}: ${this.side}: message ${number} is another one`);
	}

	close() {
		truth.push(`close ${this.fd}\n`);
		this.socket.destroy();
	}
}

// Odd connections write without waiting for what the peer has to say.
async function talk(end) {
	const numbers = [...Array(MESSAGES).keys()];

	if (end.side === 'server')
		await end.receive(0);
	else
		await end.send(0);
	if (end.conn % 2)
		await Promise.all([
			(async () => { for (const n of numbers) if (n || end.side === 'server') await end.send(n); })(),
			(async () => { for (const n of numbers) if (n || end.side === 'client') await end.receive(n); })(),
		]);
	else
		for (const n of numbers) {
			if (n && end.side === 'client')
				await end.send(n);
			if (n || end.side === 'client')
				await end.receive(n);
			if (end.side === 'server')
				await end.send(n);
		}
}

function listen() {
	const server = tls.createServer({ cert, key });

	server.listen(0, '127.0.0.1', CONNS, () =>
		fs.writeFileSync(contact, `${server.address().port}\n`));
	return events.once(server, 'listening').then(() => server);
}

async function serve(server) {
	const ends = [];
	await new Promise((done, failed) => server.on('secureConnection', (socket) => {
		const end = new End(socket, 'server', null);
		talk(end).then(() => ends.push(end) === CONNS && done(), failed);
	}));
	// every socket is still open: no fd number has come twice
	await Promise.all(ends.map(({ socket }) => socket.closed || events.once(socket, 'close')));
	ends.forEach((end) => end.close());
	server.close();
}

async function connect(conn) {
	const socket = tls.connect({
		port: Number(fs.readFileSync(contact, 'latin1')), host: '127.0.0.1',
		ca: cert, servername: 'localhost',
	});
	await events.once(socket, 'secureConnect');
	return new End(socket, 'client', conn);
}

async function ask() {
	const ends = await Promise.all([...Array(CONNS).keys()].map(async (conn) => {
		const end = await connect(conn);
		await talk(end);
		return end;
	}));
	ends.forEach((end) => end.close());
}

// Both ends go on until they are stopped, and then end after an answer: nothing is under way.
async function runEndless(server) {
	let used = 0;
	const servers = [];

	server.on('secureConnection', async (socket) => {
		const end = new End(socket, 'server', null);
		servers.push(end);
		for (let n = 0; ; n++) {
			await end.receive(n);
			await end.send(n);
		}
	});
	const ends = await Promise.all([...Array(ENDLESS_CONNS).keys()].map(async (conn) => {
		const end = await connect(conn);
		for (let n = 0; !stopped; n++) {
			await end.send(n);
			await end.receive(n);
			if (!n && ++used === ENDLESS_CONNS)
				process.stdout.write('running\n');
		}
		return end;
	}));
	ends.concat(servers).forEach((end) => end.close());
	server.close();
}

// ---- https ----

function body(path) {
	const [, conn, round] = path.split('/').map(Number);
	return payload(conn, 'server', round, (conn + round) % 5 ? 700 : 40000);
}

function serveHttps() {
	const server = https.createServer({ cert, key }, (request, response) => {
		request.resume();
		request.on('end', () => response.end(body(request.url)));
	});
	server.keepAliveTimeout = 0;	// on a slow machine the next round is long in coming
	let ended = 0;
	server.on('secureConnection', (socket) => socket.on('close', () =>
		++ended === CONNS && server.close()));
	server.listen(0, '127.0.0.1', CONNS, () => console.log(`listening ${server.address().port}`));
	return events.once(server, 'close');
}

async function askHttps(port) {
	const agent = new https.Agent({ keepAlive: true, ca: cert });
	const get = (path) => new Promise((done, failed) => {
		const request = https.request({ agent, path, port, host: 'localhost', family: 4, method: 'POST' },
			async (response) => {
				const parts = [];
				for await (const part of response)
					parts.push(part);
				done(Buffer.concat(parts));
			});
		request.on('error', failed);
		request.end(`this is for ${path}`);
	});

	for (let round = 0; round < HTTPS_ROUNDS; round++)
		await Promise.all([...Array(CONNS).keys()].map(async (conn) => {
			const path = `/${conn}/${round}`;
			assert((await get(path)).equals(body(path)), `${path}: another reply`);
		}));
	agent.destroy();
}

async function main() {
	const lines = require('readline').createInterface({ input: process.stdin });
	const go = events.once(lines, 'line');
	const stop = go.then(() => events.once(lines, 'line'));

	process.on('unhandledRejection', (why) => { throw why; });
	setTimeout(() => { throw new Error('stuck'); }, MAX_SECONDS * 1000).unref();
	const web = mode === 'https-server' ? serveHttps() : null;
	const server = ['server', 'both', 'endless'].includes(mode) ? await listen() : null;

	stop.then(() => { stopped = true; });
	console.log('ready');
	const [line] = await go;
	if (mode === 'https-server')
		await web;
	else if (mode === 'https-client')
		await askHttps(Number(line));
	else if (endless)
		await runEndless(server);
	else
		await Promise.all([server && serve(server), mode !== 'server' && ask()]);
	if (truthFile)
		fs.writeFileSync(truthFile, truth.join(''));
}

main().then(() => process.exit(0), (why) => {
	console.error(why);
	process.exit(1);
});
