// connect-pg-simple's own cleaner. Standard input: {url}. Standard output: how many seconds it took.
import { promisify } from "node:util";
import { readFileSync } from "node:fs";
import session from "express-session";
import connectPgSimple from "connect-pg-simple";

const { url } = JSON.parse(readFileSync(0, "utf8"));
const store = new (connectPgSimple(session))({ conString: url, pruneSessionInterval: false });
await promisify(store.get.bind(store))("nobody"); // connects
const began = performance.now();
await promisify(store.pruneSessions.bind(store))();
console.log(JSON.stringify((performance.now() - began) / 1000));
await store.close();
