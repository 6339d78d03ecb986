import { createDoor } from '../_shared/door.ts'
import { readProject } from '../_shared/project.ts'

const door = createDoor(readProject((name) => Deno.env.get(name)))
Deno.serve(door.fetch)
