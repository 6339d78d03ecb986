import { createDeliver, readDeliverSettings } from './deliver.ts'

const deliver = createDeliver(readDeliverSettings(Deno.env.toObject()))
Deno.serve(deliver)
