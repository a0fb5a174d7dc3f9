// Auth.js' PostgreSQL adapter: writes sessions, or tells which of some it still finds.
// Standard input: {url, action: "write" | "find", sessions: {token: seconds to live}}.
import { readFileSync } from "node:fs";
import PostgresAdapter from "@auth/pg-adapter";
import pg from "pg";

const ask = JSON.parse(readFileSync(0, "utf8"));
const pool = new pg.Pool({ connectionString: ask.url });
const adapter = PostgresAdapter(pool);
const found = [];
for (const [sessionToken, seconds] of Object.entries(ask.sessions)) {
  if (ask.action === "write") {
    const user = await adapter.createUser({ name: sessionToken, email: `${sessionToken}@example.org`, emailVerified: null });
    const expires = new Date(Date.now() + seconds * 1000);
    await adapter.createSession({ sessionToken, userId: user.id, expires });
  } else {
    const both = await adapter.getSessionAndUser(sessionToken);
    if (both && both.user.name === sessionToken) found.push(sessionToken);
  }
}
await pool.end();
console.log(JSON.stringify(found));
